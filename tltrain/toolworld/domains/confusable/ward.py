"""The ward of a hospital: a confusable domain of the test split."""

from __future__ import annotations

from datetime import date
from random import Random

from tltrain.toolworld.answers import json_success_false
from tltrain.toolworld.domains.confusable.records import (
    Records,
    a_key,
    a_key_and,
    change,
    fields_of,
    key_with,
    keys_with,
    record,
)
from tltrain.toolworld.registry import Domain, Plan, Vague, call
from tltrain.toolworld.vocabulary import full_names, ids

BEDS = tuple(f"{room}-{bed}" for room in range(101, 130) for bed in "AB")
DIETS = ("light", "low salt", "vegetarian", "liquid", "no sugar")
NURSES = ("Ada", "Bela", "Cora", "Dario", "Edgar", "Flora")


def open_ward(rng: Random, today: date) -> Records:
    """Create the state of `ward`: patient id -> patient."""
    names, doctors, beds = full_names(rng, 6), full_names(rng, 3), rng.sample(BEDS, 6)
    return {
        key: {
            "name": names[at],
            "doctor": rng.choice(doctors),
            "bed": beds[at],
            "nurse": rng.choice(NURSES),
            "diet": rng.choice(DIETS),
            "weight": rng.randint(45, 120),
            "height": rng.randint(150, 199),
            "age": rng.randint(19, 93),
            "insurance": f"H{rng.randint(10000, 99999)}",
        }
        for at, key in enumerate(ids(rng, "PA", 6))
    }


ward = Domain("ward", failure=json_success_false, setup=open_ward, confusable=True)


@ward.tool
def get_patient_by_name(patients: Records, /, name: str) -> dict:
    """Find the id of a patient by name.

    name: first and last name
    """
    return {"patient": key_with(patients, name=name)}


@ward.tool
def get_patient_by_bed(patients: Records, /, bed: str) -> dict:
    """Find the id of the patient who lies in a bed.

    bed: number such as 101-A
    """
    return {"patient": key_with(patients, bed=bed)}


@ward.tool
def get_patients_by_doctor(patients: Records, /, doctor: str) -> dict:
    """List the ids of a doctor's patients.

    doctor: first and last name
    """
    return {"patients": keys_with(patients, doctor=doctor)}


@ward.tool
def get_patients_by_nurse(patients: Records, /, nurse: str) -> dict:
    """List the ids of a nurse's patients.

    nurse: first name
    """
    return {"patients": keys_with(patients, nurse=nurse)}


@ward.tool
def getPatientDoctor(patients: Records, /, patient: str) -> dict:
    """Tell which doctor treats a patient.

    patient: id such as PA-1234
    """
    return {"doctor": record(patients, patient)["doctor"]}


@ward.tool
def getPatientDiet(patients: Records, /, patient: str) -> dict:
    """Tell the diet of a patient.

    patient: id such as PA-1234
    """
    return {"diet": record(patients, patient)["diet"]}


@ward.tool
def getPatientInsurance(patients: Records, /, patient: str) -> dict:
    """Tell the insurance number of a patient.

    patient: id such as PA-1234
    """
    return {"insurance": record(patients, patient)["insurance"]}


@ward.tool
def get_patient_age(patients: Records, /, patient: str) -> dict:
    """Tell how old a patient is.

    patient: id such as PA-1234
    """
    return {"age": record(patients, patient)["age"]}


@ward.tool
def get_patient_weight(patients: Records, /, patient: str, unit: str = "kg") -> dict:
    """Tell the weight of a patient.

    patient: id such as PA-1234
    unit: kg or g, kg if not given
    """
    return {"weight": record(patients, patient)["weight"] * (1000 if unit == "g" else 1)}


@ward.tool
def get_patient_height(patients: Records, /, patient: str, unit: str = "cm") -> dict:
    """Tell the height of a patient.

    patient: id such as PA-1234
    unit: cm or mm, cm if not given
    """
    return {"height": record(patients, patient)["height"] * (10 if unit == "mm" else 1)}


@ward.tool
def updatePatientBed(patients: Records, /, patient: str, bed: str) -> dict:
    """Move a patient to another bed.

    patient: id such as PA-1234
    bed: number such as 101-A
    """
    return {"updated": patient, **change(patients, patient, bed=bed)}


@ward.tool
def updatePatientDiet(patients: Records, /, patient: str, diet: str) -> dict:
    """Change the diet of a patient.

    patient: id such as PA-1234
    diet: kind of diet
    """
    return {"updated": patient, **change(patients, patient, diet=diet)}


@ward.tool
def updatePatientNurse(patients: Records, /, patient: str, nurse: str) -> dict:
    """Make another nurse responsible for a patient.

    patient: id such as PA-1234
    nurse: first name
    """
    return {"updated": patient, **change(patients, patient, nurse=nurse)}


ward.lookup(
    get_patient_by_name,
    "[What is|Tell me] the id of the patient {name}[?|.]",
    "{name} has arrived at the ward. [I need the patient's id.|Under which id is this patient?]",
    "Find the patient named {name}.",
    draw=fields_of("name"),
    answer="The id of {name} is {patient}.",
)
ward.lookup(
    get_patient_by_bed,
    "[Who lies|Which patient is] in bed {bed}?",
    "The bell of bed {bed} rings. [Which patient is that?|I need the id of the patient.]",
    "Find the patient in {bed}.",
    draw=fields_of("bed"),
    answer="In bed {bed} lies {patient}.",
)
ward.lookup(
    get_patients_by_doctor,
    "[Which|What] patients does Dr. {doctor} treat?",
    "Dr. {doctor} begins the round. [List|Show me] the patients of this doctor.",
    "[Give me|I need] the ids of the patients of Dr. {doctor}.",
    draw=fields_of("doctor"),
    answer="Dr. {doctor} treats {patients}.",
    vague=Vague("List the patients of my doctor.", "Which doctor is it?", "[Dr. |]{doctor}"),
)
ward.lookup(
    get_patients_by_nurse,
    "[Which|What] patients does nurse {nurse} look after?",
    "Nurse {nurse} is ill today. [List|Show me] the patients of this nurse.",
    "[Give me|I need] the ids of the patients of nurse {nurse}.",
    draw=fields_of("nurse"),
    answer="Nurse {nurse} looks after {patients}.",
)
ward.lookup(
    getPatientDoctor,
    "[Who|Which doctor] treats the patient {patient}?",
    "I have a question about {patient}. [Whom do I ask, that is, who is the doctor?|Which doctor is it?]",
    "[Tell me|I need] the doctor of {patient}.",
    draw=a_key("patient"),
    answer="Dr. {doctor} treats {patient}.",
)
ward.lookup(
    getPatientDiet,
    "[What may {patient} eat|What diet does {patient} have]?",
    "I bring lunch to {patient}. [Which diet is it?|Is there a diet, and which?]",
    "[Tell me|I need] the diet of {patient}.",
    draw=a_key("patient"),
    answer="The diet of {patient} is {diet}.",
)
ward.lookup(
    getPatientInsurance,
    "[What is|Tell me] the insurance number of {patient}[?|.]",
    "I write the bill of {patient}. [Which insurance number do I put?|I need the number of the insurance.]",
    draw=a_key("patient"),
    answer="The insurance number of {patient} is {insurance}.",
)
ward.lookup(
    get_patient_age,
    "[How old is|What is the age of] {patient}?",
    "The dose for {patient} depends on the age. [What is it?|Please look it up.]",
    draw=a_key("patient"),
    answer="{patient} is {age} years old.",
)
ward.lookup(
    updatePatientBed,
    "[Move|Take] {patient} to bed {bed}.",
    "{patient} gets another bed, {bed}. [Please enter it.|Please change it.]",
    draw=a_key_and("patient", bed=BEDS),
    answer="{updated} is now in bed {bed}.",
)
ward.lookup(
    updatePatientDiet,
    "[Change|Set] the diet of {patient} to '{diet}'.",
    "{patient} gets the diet '{diet}' from today on. [Please enter it.|Please change it.]",
    draw=a_key_and("patient", diet=DIETS),
    answer="The diet of {updated} is now {diet}.",
)
ward.lookup(
    updatePatientNurse,
    "[Put|Make] nurse {nurse} in charge of {patient}.",
    "From today on, nurse {nurse} looks after {patient}. [Please enter it.|Please change it.]",
    draw=a_key_and("patient", nurse=NURSES),
    answer="Nurse {nurse} now looks after {updated}.",
)


@ward.task(
    "[What is the weight of|How much weighs] {patient}[?|, in {unit}?]",
    "I calculate the dose for {patient} by weight. What is it[?|, in {unit}?]",
)
def weight_of_patient(patients: Records, rng: Random) -> Plan:
    patient = rng.choice(list(patients))
    mentioned = yield {"patient": patient, "unit": "g"}
    measure = {"unit": "g"} if "unit" in mentioned else {}
    found = yield call(get_patient_weight, patient=patient, **measure)
    return f"{patient} weighs {found['weight']} {measure.get('unit', 'kg')}."


@ward.task(
    "[What is the height of|How tall is] {patient}[?|, in {unit}?]",
    "{patient} needs crutches of the right size. How tall is the patient[?|, in {unit}?]",
)
def height_of_patient(patients: Records, rng: Random) -> Plan:
    patient = rng.choice(list(patients))
    mentioned = yield {"patient": patient, "unit": "mm"}
    measure = {"unit": "mm"} if "unit" in mentioned else {}
    found = yield call(get_patient_height, patient=patient, **measure)
    return f"{patient} is {found['height']} {measure.get('unit', 'cm')} tall."


@ward.task(
    "[Find|Look up] the patient in bed {bed} and tell me the doctor and the diet.",
    "Who treats the patient in bed {bed}, and what is the diet there?",
)
def doctor_and_diet(patients: Records, rng: Random) -> Plan:
    bed = rng.choice(list(patients.values()))["bed"]
    yield {"bed": bed}
    found = yield call(get_patient_by_bed, bed=bed)
    doctor = yield call(getPatientDoctor, patient=found["patient"])
    diet = yield call(getPatientDiet, patient=found["patient"])
    return f"Dr. {doctor['doctor']} treats {found['patient']}, whose diet is {diet['diet']}."


@ward.task(
    "[Find|Look up] the patient {name} and move this patient to bed {bed}.",
    "{name} has to move to bed {bed}. Find the patient and enter it.",
)
def bed_by_name(patients: Records, rng: Random) -> Plan:
    patient = rng.choice(list(patients.values()))
    bed = rng.choice([bed for bed in BEDS if bed != patient["bed"]])
    yield {"name": patient["name"], "bed": bed}
    found = yield call(get_patient_by_name, name=patient["name"])
    yield call(updatePatientBed, patient=found["patient"], bed=bed)
    return f"{found['patient']} is now in bed {bed}."
