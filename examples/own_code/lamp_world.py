"""An environment: a lamp that the user wants on or off."""

from tltrain.environments import Environment
from tltrain.trajectory import Call, Message, Task, Tool, Turn

TOOLS = tuple(Tool(name, "", {"properties": {key: {}}}) for name, key in (("switch", "on"), ("finish", "answer")))


class Lamp(Environment):
    def reset(self, task):
        self.wanted, self.on = task.meta["on"], None
        return Turn(TOOLS, (Message("user", f"Lamp {'on' if self.wanted else 'off'}, please."),))

    def call(self, call):
        self.on = call.arguments.get("on")
        return f"The lamp is {'on' if self.on else 'off'}."

    def outcome(self):
        return {"success": self.on == self.wanted}


class Lamps:
    def __init__(self, size: int = 4):  # the keys of the choice
        self.size, self.environment = size, Lamp

    def tasks(self):
        return [Task(str(number), {"on": number % 2 == 0}) for number in range(self.size)]

    def golden(self, task):
        return [[Call("switch", {"on": task.meta["on"]}), Call("finish", {"answer": "Done."})]]
