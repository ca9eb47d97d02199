"use strict";
/* The page is complete without this; it adds sorting, hiding lines, filtering the flips, and light or dark. */
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  /* Light or dark */
  const theme = $("#theme");
  const remembered = { get() { try { return localStorage.getItem("tltrain-theme") || ""; } catch { return ""; } },
    set(value) { try { localStorage.setItem("tltrain-theme", value); } catch { /* not from this file */ } } };
  const paint = (value) => {
    if (value) document.documentElement.dataset.theme = value; else delete document.documentElement.dataset.theme;
  };
  theme.hidden = false;
  theme.addEventListener("change", (event) => { paint(event.target.value); remembered.set(event.target.value); });
  const last = $$("input", theme).find((input) => input.value === remembered.get());
  if (last) { last.checked = true; paint(last.value); }

  /* Sorting: by the button in a column's head; rows without a value stay at the end */
  const sort = (table, head, column) => {
    const numeric = !head.classList.contains("word") || column === 0;
    const first = column === 0 || !numeric ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const direction = head.getAttribute("aria-sort") === first ? other : first;
    $$("th[aria-sort]", table).forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", direction);
    const value = (row) => {
      const cell = row.cells[column];
      return !cell || cell.dataset.v === "" ? null : numeric ? Number(cell.dataset.v) : cell.dataset.v;
    };
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (numeric ? x - y : x.localeCompare(y, "en", { numeric: true }));
    });
    table.tBodies[0].append(...rows);
  };
  for (const table of $$("table.sortable")) {
    $$("tr.heads th", table).forEach((head, column) => {
      const button = make("button", { type: "button" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(table, head, column));
    });
  }

  /* A table that continues to the right or below says so until it is scrolled to its end */
  for (const sheet of $$(".sheet")) {
    const region = $(".scroll", sheet), says = $(".on", sheet);
    const tell = () => {
      const right = region.scrollWidth - region.clientWidth - region.scrollLeft > 1;
      const below = region.scrollHeight - region.clientHeight - region.scrollTop > 1;
      region.toggleAttribute("data-more", right);
      says.textContent = [below && "More rows below \u2193", right && "More columns to the right \u2192"].filter(Boolean).join(" \u00b7 ");
      says.hidden = !right && !below;
    };
    region.addEventListener("scroll", tell, { passive: true });
    new ResizeObserver(tell).observe(region);
  }

  /* Charts: a legend's button hides its line, and highlights it while the pointer is on it */
  for (const figure of $$("figure.chart")) {
    const marks = $$(":scope > svg [data-series]", figure);
    const setOff = (series) => marks.forEach((mark) => {
      mark.classList.toggle("dim", series !== null && mark.dataset.series !== series);
    });
    for (const button of $$(".legend button", figure)) {
      const series = button.dataset.series;
      button.addEventListener("click", () => {
        const shown = button.getAttribute("aria-pressed") === "false";
        button.setAttribute("aria-pressed", shown);
        marks.filter((mark) => mark.dataset.series === series).forEach((mark) => mark.classList.toggle("off", !shown));
      });
      for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => setOff(series));
      for (const event of ["mouseleave", "blur"]) button.addEventListener(event, () => setOff(null));
    }
  }

  /* The command */
  const copy = $("#copy");
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    const selection = getSelection();
    selection.selectAllChildren($("#command"));
    try { await navigator.clipboard.writeText($("#command").textContent); copy.textContent = "Copied"; }
    catch { copy.textContent = "Selected"; }
  });

  /* Flips */
  const data = JSON.parse($("#data").textContent);
  const form = $("#filters");
  if (!form) return;
  const FIRST = 5, PAGE = 20;
  const fields = form.elements;
  let shown = FIRST;
  const words = (name) => name.replaceAll("_", " ");
  const option = (select, value, label) => select.append(make("option", { value }, label));
  data.rows.forEach((label, row) => {
    if (data.answers.some((one) => one.row === row)) ["a", "b"].forEach((name) => option(fields[name], row, label));
  });
  data.levels.forEach((level, i) => option(fields.level, i, level.toUpperCase()));
  data.sets.forEach((set, i) => option(fields.set, i, data.set_names[i]));
  data.grades.forEach((grade, i) => option(fields.grade, i, words(grade)));

  const answers = (row, seed) => data.answers.find((one) => one.row === row && one.seed === seed)?.lines;
  const seeds = () => {
    const of = (name) => data.answers.filter((one) => one.row === Number(fields[name].value)).map((one) => one.seed);
    const both = of("a").filter((seed) => of("b").includes(seed));
    const before = fields.seed.value;
    fields.seed.replaceChildren();
    both.forEach((seed) => option(fields.seed, seed, String(seed)));
    if (both.includes(Number(before)) && before !== "") fields.seed.value = before;
  };
  const side = (letter, row, answer, right) => make("div", { class: "side " + (right ? "right" : "wrong") },
    make("h4", {}, letter + " \u00b7 " + data.rows[row]),
    make("p", { class: "grade" }, words(data.grades[answer[1]])),
    ...(data.textless ? [] : [make("pre", {}, data.texts[answer[0]]), make("p", { class: "reason" }, data.texts[answer[2]])]));
  const card = (flip) => {
    const [set, id, question, goldens] = flip.sample;
    const flag = make("span", { class: "flag " + flip.direction }, (flip.direction === "gained" ? "\u25b2 " : "\u25bc ") + flip.direction);
    const item = make("li", { class: "card" }, make("h3", {}, flag, data.set_names[set] + " ", make("code", {}, id)));
    if (data.texts[question]) item.append(make("p", { class: "question" }, data.texts[question]));
    item.append(
      make("div", { class: "expected" }, make("h4", {}, data.accepted), make("pre", {}, data.texts[goldens])),
      make("div", { class: "sides" }, side("A", flip.rows[0], flip.a, flip.direction === "lost"),
        side("B", flip.rows[1], flip.b, flip.direction === "gained")));
    return item;
  };
  /* Lost samples first, then in the order of the data */
  const flips = () => {
    const rows = [Number(fields.a.value), Number(fields.b.value)], seed = Number(fields.seed.value);
    const [a, b] = fields.seed.value === "" ? [] : rows.map((row) => answers(row, seed));
    if (!a || !b) return null;
    const level = Number(fields.level.value), text = fields.text.value.trim().toLowerCase();
    return data.samples.flatMap((sample, i) => {
      if (!a[i] || !b[i]) return [];
      const right = [a[i], b[i]].map((answer) => (answer[3] >> level) & 1);
      if (right[0] === right[1]) return [];
      const direction = right[1] ? "gained" : "lost";
      if (fields.direction.value && fields.direction.value !== direction) return [];
      if (fields.set.value !== "" && Number(fields.set.value) !== sample[0]) return [];
      if (fields.grade.value !== "" && ![a[i][1], b[i][1]].includes(Number(fields.grade.value))) return [];
      const numbers = [sample[2], sample[3], a[i][0], a[i][2], b[i][0], b[i][2]];
      if (text && ![sample[1], ...numbers.map((n) => data.texts[n])].some((one) => one.toLowerCase().includes(text))) return [];
      return [{ sample, direction, rows, a: a[i], b: b[i] }];
    }).sort((x, y) => (x.direction === "gained") - (y.direction === "gained"));
  };
  const show = () => {
    const found = flips();
    const gained = (found || []).filter((flip) => flip.direction === "gained").length;
    $("#count").textContent = found === null ? "These two rows have no seed in common."
      : found.length === 0 ? "No sample matches."
      : `${found.length} flipped: ${gained} gained, ${found.length - gained} lost from A to B.` +
        (found.length > shown ? ` The first ${shown} are shown.` : "");
    $("#cards").replaceChildren(...(found || []).slice(0, shown).map(card));
    $("#more").hidden = !found || found.length <= shown;
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { shown = FIRST; seeds(); show(); });
  $("#more").addEventListener("click", () => {
    const before = shown;
    shown += PAGE;
    show();
    const next = $$("#cards > li")[before];
    if (next) { next.tabIndex = -1; next.focus(); }
  });
  form.hidden = false;
  $("#rest")?.remove();
  [fields.a.value, fields.b.value] = data.pair.map(String);
  fields.level.value = String(data.level);
  seeds();
  show();
})();
