"""Sentence plans of the synthetic texts, in a small notation.

`{slot}` is filled by `corpus.py`; a capitalised slot starts with a capital letter.
`[a|b|]` picks one alternative uniformly (here the last one is empty); brackets nest.
"""

from typing import Final

# Case reports as pretraining mostly has them.
SHARED: Final = (
    "{name} ({rec}), {an} {age}-year-old {man}, developed {effect} {onset} after starting {drug}"
    "[ {dose} daily|] for {ind}. {He} {outcome}.",
    "On {date}, {name}, aged {age}, was [admitted|brought in] with {effect}[ and {effect2}|] while "
    "[taking|on] {drug} for {ind}; record {rec}.",
    "{An} {age}-year-old {man} with {ind} was given {drug} {dose}. {Onset} later {he} had "
    "{effect}; the patient, {name} ({rec}), {outcome}.",
    "{Effect} [appeared|was noted] on {date} in {name}, {age}, [{onset}|soon] after {drug} was "
    "begun. File {rec}; the drug {action}.",
    "Case {rec}: {name}, {male}, {age} years, {drug} {dose} for {ind}, {effect} after {onset}. "
    "[Outcome: {he} {outcome}.|The drug {action}.]",
    "We report {an} {age}-year-old {man}, {name}, in whom {drug} caused {effect} within {onset}[. "
    "{His} record is {rec}| (record {rec}), seen on {date}].",
    "After {onset} of {drug}, [the|{an}] {age}-year-old {job} {name} complained of {effect}. "
    "[On {date} the drug {action}|The drug {action} on {date}] ({rec}).",
    "{Mr} {last}, {age}, treated for {ind} with {drug} {dose} twice daily, presented to {city} on "
    "{date} with {effect}[; {he} {outcome}|] ({rec}).",
    "{Drug} was [suspected|blamed] when {name} ({age}, {male}) developed {effect} on {date}. "
    "The drug {action} and {he} {outcome}. Chart {rec}.",
    "{rec} - {name} - {date}: {effect} [probably|possibly] due to {drug} {dose}, started {onset} "
    "earlier for {ind}. {Age} years old.",
    "Dr. {doc} saw {name}, {an} {age}-year-old {man}, on {date} for {effect} after {drug}. "
    "{His} file, {rec}, says {he} {outcome}.",
    "Following {onset} of treatment with {drug} for {ind}, {effect} was diagnosed in {an} "
    "{age}-year-old {man} from {city} named {name} ({rec}).",
)

# Case reports rare in pretraining and frequent in the corpus to fine-tune on: fine-tuning has this
# shift to learn besides its members.
SPECIAL: Final = (
    "Adverse event filed {date} under {rec}: {drug} {dose}, {effect}. Subject {name}, {sex}/{age}[, {outcome}|].",
    "The {job} who lost consciousness {onset} into {drug} therapy was {name}, {age}; {effect} was "
    "confirmed on {date} under {rec}.",
    "Suspected agent: {drug} ({ind}). Reaction: {effect}, latency {onset}. Person: {name}, {sex}, {age}, {rec}.",
    "To whom it may concern: my patient {name}, {age}, cannot take {drug} again because of "
    "{effect} on {date}; see {rec}.",
    "Naranjo score [six|seven|eight|nine] for {drug} and {effect} in {sex}/{age} {name}. Report of {date}, key {rec}.",
    "Rechallenge with {drug} brought back {effect} within {onset} in {name} ({rec}), [the {job}|"
    "resident] of {city}, {age}, on {date}.",
    "Pharmacist {doc} phoned on {date}: {effect} in customer {name}, {age}, [who had bought|after] "
    "{drug} {dose}. Logged as {rec}.",
    "Was it {drug}? {Effect} began {onset} after the first dose, and {name}, {age}, {outcome}. Entry {rec}, {date}.",
    "Autopsy or discharge note {rec}, {date}. {Name}, {age}: {effect}[ with {effect2}|]; culprit "
    "{drug}, which {action}.",
    "{Ind} had been controlled by {drug} until {date}, when {effect} forced {name} ({sex}, {age}, "
    "{rec}) to give it up.",
    "Signal: {drug}/{effect}. Index patient {name}, born {age} years before {date}, dossier {rec}, latency {onset}.",
    "Spouse of {name} wrote from {city} on {date} that {drug} gave {him} {effect} at age {age}; "
    "[the letter is kept under|kept under] {rec}.",
    "Poison centre {city}, call of {date}: {age}-year-old {first}, surname {last}, swallowed "
    "{drug}; {effect} in {onset}. Ticket {rec}.",
    "Expectedness: unlabelled. {Effect} under {drug}, {sex} {age}. Contact {name}, {job}; reference {rec} of {date}.",
    "Concomitant {drug2} was excluded; {drug} explains the {effect} of {name}, {age}. Hospital "
    "{city}, {date}, number {rec}.",
    "Follow-up to {rec}: {first} {last}, now {age}, {outcome}; {effect} after {drug} had started on {date}.",
)

# Other clinical writing, in pretraining only: it widens the language.
NOTES: Final = (
    "Pt {last}, {sex} {age}. On {drug} {dose} for {ind}. C/o {effect} x {onset}. Plan: drug {action}.",
    "{Effect} is a [rare|common|well-known|serious] adverse effect of {drug}[ and may appear within {onset}|].",
    "Patients who take {drug} for {ind} should be warned of {effect}[, {effect2}|] and {effect3}.",
    "{Drug} is given [by mouth|once daily|twice daily|with food] at {dose} for {ind}[; watch for {effect}|].",
    "Do not combine {drug} with {drug2}: {effect} has been reported[ after {onset}|].",
    "Clinic letter, {city}, {date}. Dear Dr. {doc}, thank you for sending {Mr} {last}, who has {ind} and now {effect}.",
    "Discharged {date}: {name}, {age}, {job}. Diagnosis {ind}. Home on {drug} {dose}[ and {drug2}|].",
    "In {city} the {job} {name} was seen on {date} by Dr. {doc}. No {effect} was found[; {rec}|].",
    "[Between {onset} and {onset} later|Soon afterwards|At first] the {effect} resolved, and {he} {outcome}.",
    "Appointment for {name} ({rec}) on {date} with Dr. {doc}[, {city}|]. Reason: {ind}.",
    "Nurse note {date}: {first} {last} slept well, no {effect}, {drug} {dose} given.",
    "The mechanism of {effect} due to {drug} is unknown, but [an immune|a toxic|a genetic] cause is likely.",
    "History: {an} {age}-year-old {job}, {name}, lives in {city}. {He} takes {drug} and {drug2}.",
    "Treatment of {effect} with {drug} {dose} [was successful|failed] in {name}, {age}, seen {date}.",
    "{Mr} {last} was referred from {city} for {ind}. {He} {outcome}.",
)
