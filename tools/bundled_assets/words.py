"""Word lists of the synthetic pharmacovigilance texts: names, drugs, effects, outcomes.

A leading `*` marks a drug or effect that is rare in pretraining and as frequent as any other in the
case reports, so that fine-tuning has something to learn besides its members.
"""

from typing import Final, NamedTuple


class DrugClass(NamedTuple):
    """Drugs of one use. `drugs` holds (name, doses); `indications` what they are given for."""

    drugs: tuple[tuple[str, tuple[str, ...]], ...]
    indications: tuple[str, ...]


def _drug_class(drugs: str, indications: str) -> DrugClass:
    """Read `name:dose,dose` items; doses are in mg."""
    pairs = (item.split(":") for item in drugs.split())
    parsed = tuple((name, tuple(f"{dose} mg" for dose in doses.split(","))) for name, doses in pairs)
    return DrugClass(parsed, tuple(indications.split("; ")))


DRUG_CLASSES: Final = (
    _drug_class(
        "amiodarone:200,400 flecainide:50,100 sotalol:80,160 digoxin:0.125,0.25 diltiazem:120,240 *dronedarone:400",
        "atrial fibrillation; atrial flutter; ventricular tachycardia; heart failure",
    ),
    _drug_class(
        "lisinopril:10,20 amlodipine:5,10 losartan:50,100 hydralazine:25,50 bisoprolol:2.5,5 "
        "spironolactone:25,50 *nebivolol:5 *minoxidil:5,10",
        "hypertension; nephrotic syndrome; angina pectoris; left ventricular dysfunction",
    ),
    _drug_class(
        "warfarin:3,5 apixaban:2.5,5 rivaroxaban:15,20 clopidogrel:75 ticlopidine:250 *edoxaban:30,60",
        "deep vein thrombosis; pulmonary embolism; coronary stenting; ischemic stroke",
    ),
    _drug_class(
        "simvastatin:20,40 atorvastatin:10,40 gemfibrozil:600 ezetimibe:10 *pitavastatin:2,4",
        "hypercholesterolemia; mixed dyslipidemia; familial hyperlipidemia",
    ),
    _drug_class(
        "metformin:500,850 glipizide:5,10 pioglitazone:15,30 sitagliptin:50,100 acarbose:50 *dapagliflozin:5,10",
        "type 2 diabetes; gestational diabetes; impaired glucose tolerance",
    ),
    _drug_class(
        "fluoxetine:20,40 sertraline:50,100 venlafaxine:75,150 mirtazapine:15,30 "
        "amitriptyline:25,50 bupropion:150 *vortioxetine:10,20",
        "major depression; panic disorder; obsessive-compulsive disorder; neuropathic pain",
    ),
    _drug_class(
        "clozapine:100,300 olanzapine:5,10 risperidone:2,4 haloperidol:2,5 quetiapine:100,300 "
        "lithium:300,600 *lurasidone:40,80",
        "schizophrenia; bipolar disorder; acute mania; delusional disorder",
    ),
    _drug_class(
        "carbamazepine:200,400 phenytoin:100,300 valproate:500,1000 lamotrigine:25,100 "
        "levetiracetam:500,1000 topiramate:50,100 *lacosamide:100,200 *zonisamide:100",
        "focal epilepsy; generalized seizures; trigeminal neuralgia; migraine prophylaxis",
    ),
    _drug_class(
        "amoxicillin:500,875 ciprofloxacin:250,500 vancomycin:500,1000 doxycycline:100 "
        "clarithromycin:250,500 linezolid:600 isoniazid:300 rifampicin:450,600 "
        "*moxifloxacin:400 *fosfomycin:3000",
        "community-acquired pneumonia; cellulitis; pyelonephritis; pulmonary tuberculosis; "
        "infective endocarditis; acute sinusitis",
    ),
    _drug_class(
        "fluconazole:100,200 voriconazole:200 acyclovir:400,800 ganciclovir:250,500 "
        "efavirenz:600 *posaconazole:300 *raltegravir:400",
        "invasive aspergillosis; herpes zoster; cytomegalovirus retinitis; HIV infection; oral candidiasis",
    ),
    _drug_class(
        "methotrexate:7.5,15 cisplatin:75,100 paclitaxel:135,175 imatinib:400,600 "
        "capecitabine:1000,1250 tamoxifen:20 *sunitinib:37.5,50 *nilotinib:300,400",
        "metastatic breast cancer; ovarian carcinoma; chronic myeloid leukemia; "
        "colorectal cancer; renal cell carcinoma; gastrointestinal stromal tumor",
    ),
    _drug_class(
        "azathioprine:50,100 cyclosporine:100,150 tacrolimus:1,2 prednisone:10,40 "
        "leflunomide:10,20 sulfasalazine:500,1000 *tofacitinib:5,10",
        "rheumatoid arthritis; ulcerative colitis; lupus nephritis; psoriasis; "
        "kidney transplantation; myasthenia gravis",
    ),
    _drug_class(
        "ibuprofen:400,600 diclofenac:50,75 naproxen:250,500 celecoxib:100,200 colchicine:0.5,1 "
        "allopurinol:100,300 *febuxostat:40,80",
        "osteoarthritis; acute gout; ankylosing spondylitis; low back pain; tendinitis",
    ),
    _drug_class(
        "morphine:10,30 tramadol:50,100 oxycodone:5,20 methadone:5,10 gabapentin:300,600 *tapentadol:50,100",
        "postoperative pain; cancer pain; opioid dependence; postherpetic neuralgia",
    ),
    _drug_class(
        "omeprazole:20,40 ranitidine:150,300 metoclopramide:10 loperamide:2,4 domperidone:10,20 *esomeprazole:20,40",
        "gastric ulcer; reflux esophagitis; diabetic gastroparesis; chronic diarrhea",
    ),
    _drug_class(
        "levothyroxine:0.05,0.1 propylthiouracil:50,100 methimazole:5,10 alendronate:10,70 "
        "raloxifene:60 *cinacalcet:30,60",
        "hypothyroidism; Graves disease; osteoporosis; hyperparathyroidism",
    ),
    _drug_class(
        "theophylline:200,300 montelukast:10 cetirizine:10 bosentan:62.5,125 *roflumilast:0.5",
        "chronic bronchitis; bronchial asthma; allergic rhinitis; pulmonary hypertension",
    ),
    _drug_class(
        "levodopa:100,250 ropinirole:1,4 donepezil:5,10 memantine:10,20 baclofen:10,20 *rasagiline:1 *tizanidine:2,4",
        "Parkinson disease; Alzheimer dementia; restless legs syndrome; spasticity",
    ),
    _drug_class(
        "chloroquine:250,500 mefloquine:250 dapsone:50,100 quinine:300,600 *primaquine:15",
        "falciparum malaria; malaria prophylaxis; leprosy; dermatitis herpetiformis",
    ),
)

EFFECTS: Final = tuple(
    " ".join(item.split())
    for item in """
    acute hepatitis; cholestatic jaundice; hepatic failure; acute pancreatitis; interstitial
    nephritis; acute renal failure; hyperkalemia; hyponatremia; hypokalemia; lactic acidosis; severe
    hypoglycemia; agranulocytosis; aplastic anemia; hemolytic anemia; thrombocytopenia; neutropenia;
    pancytopenia; eosinophilia; methemoglobinemia; leukocytoclastic vasculitis; Stevens-Johnson
    syndrome; toxic epidermal necrolysis; erythema multiforme; fixed drug eruption;
    photosensitivity; urticaria; angioedema; anaphylactic shock; exfoliative dermatitis; alopecia;
    maculopapular rash; gingival hyperplasia; QT prolongation; torsades de pointes; bradycardia;
    complete heart block; orthostatic hypotension; syncope; dilated cardiomyopathy; pericarditis;
    myocarditis; coronary vasospasm; pulmonary fibrosis; eosinophilic pneumonia; bronchospasm;
    pleural effusion; respiratory depression; dry cough; gastric bleeding; esophageal ulceration;
    ischemic colitis; pseudomembranous colitis; paralytic ileus; intractable hiccups; vomiting;
    watery diarrhea; tardive dyskinesia; acute dystonia; parkinsonism; akathisia; hand tremor;
    cerebellar ataxia; peripheral neuropathy; optic neuritis; aseptic meningitis; serotonin
    syndrome; neuroleptic malignant syndrome; generalized seizures; status epilepticus; confusion;
    visual hallucinations; acute psychosis; manic episode; insomnia; vivid nightmares; amnesia;
    suicidal ideation; rhabdomyolysis; myalgia; tendon rupture; arthralgia; osteonecrosis of the
    jaw; gynecomastia; galactorrhea; thyrotoxicosis; hypothyroidism; adrenal insufficiency; diabetes
    insipidus; weight gain; sensorineural deafness; tinnitus; vertigo; blurred vision; angle-closure
    glaucoma; corneal deposits; retinal toxicity; macular edema; night blindness; urinary retention;
    hemorrhagic cystitis; priapism; drug-induced lupus; serum sickness; high fever; capillary leak
    syndrome; tumor lysis syndrome; deep vein thrombosis; subdural hematoma; *acute generalized
    exanthematous pustulosis; *linear IgA dermatosis; *nail discoloration; *hypophosphatemia;
    *hypomagnesemia; *pure red cell aplasia; *microscopic colitis; *sclerosing cholangitis;
    *takotsubo cardiomyopathy; *organizing pneumonia; *reversible encephalopathy; *palinopsia;
    *burning mouth; *trismus; *oculogyric crisis; *musical hallucinations; *pathological gambling;
    *camptocormia; *livedo reticularis; *chylous ascites; *periorbital edema; *hoarseness; *loss of
    taste; *lip swelling; *sleepwalking; *myoclonic jerks; *fungal keratitis; *hair repigmentation
    """.split(";")
)

OUTCOMES: Final = tuple(
    " ".join(item.split())
    for item in """
    recovered fully; recovered slowly; died of sepsis; died two days later; was left with mild
    weakness; needed dialysis for a week; was discharged in good health; remains under follow-up;
    was lost to follow-up; improved within days; required intensive care; underwent liver
    transplantation; was symptom-free at three months; did not improve; returned to work; needed
    mechanical ventilation; relapsed on rechallenge; had permanent sequelae; went home on the fifth
    day; was transferred to another hospital; regained normal function; died of cardiac arrest;
    required blood transfusion; was well at the last visit
    """.split(";")
)

ACTIONS: Final = tuple(
    " ".join(item.split())
    for item in """
    was stopped; was withdrawn at once; was tapered off; was continued at half the dose; was
    replaced; was discontinued; was suspended for ten days; was restarted later; was given again by
    mistake; was held
    """.split(";")
)

NUMBERS: Final = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve")
UNITS: Final = ("hours", "days", "weeks", "months")
MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)

CITIES: Final = tuple(
    """
    Aberdeen Antwerp Bergen Bilbao Bordeaux Bremen Brno Cordoba Dakar Durban Fresno Galway Genoa
    Ghent Halifax Izmir Krakow Lahore Leeds Lisbon Lyon Malmo Mombasa Nagoya Oporto Osaka Quito
    Recife Riga Seville Tampere Toledo Trieste Turin Utrecht Valencia Vilnius Winnipeg Zagreb Zurich
    """.split()
)

JOBS: Final = tuple(
    """
    accountant baker bricklayer carpenter cashier cellist clerk cook dancer dentist driver
    electrician farmer fisherman florist gardener janitor judge lawyer librarian mechanic miner
    nurse painter pharmacist photographer pilot plumber postman priest sailor seamstress shepherd
    soldier tailor teacher translator waiter weaver welder
    """.split()
)
