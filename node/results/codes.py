"""Every code that a result may bear, with where it comes from: a frozen table.

A report uses these concepts and no others, and the gate (:mod:`node.results.check`) refuses an
object with any other. Triplets follow PS3.16; ``source`` names the context group (CID) or
template (TID) that lists the code for this use. Codes that no DICOM table lists carry the reason
in ``outside``. Ours have the private designator 99ECHOAI (PS3.3 8.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.sr.coding import Code

from models.finding import Evidence, Method
from models.views import View

PRIVATE_SCHEME = "99ECHOAI"
PRIVATE_SCHEME_NAME = "echonode outputs and views"


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """A code triplet. ``outside``: why it is in no DICOM table, empty where it is."""

    value: str
    scheme: str
    meaning: str
    source: str
    outside: str = ""

    @property
    def code(self) -> Code:
        """The triplet as highdicom and pydicom take it."""
        return Code(self.value, self.scheme, self.meaning)


def _dcm(value: str, meaning: str, source: str) -> Concept:
    return Concept(value=value, scheme="DCM", meaning=meaning, source=source)


def _sct(value: str, meaning: str, source: str, outside: str = "") -> Concept:
    return Concept(value=value, scheme="SCT", meaning=meaning, source=source, outside=outside)


def _loinc(value: str, meaning: str, source: str, outside: str = "") -> Concept:
    return Concept(value=value, scheme="LN", meaning=meaning, source=source, outside=outside)


def _ucum(value: str, meaning: str, source: str, outside: str = "") -> Concept:
    return Concept(value=value, scheme="UCUM", meaning=meaning, source=source, outside=outside)


def _own(value: str, meaning: str, why: str) -> Concept:
    return Concept(
        value=value, scheme=PRIVATE_SCHEME, meaning=meaning, source="echonode", outside=why
    )


# The report's frame: TID 1500, TID 1501, TID 1600 and what they include.
IMAGING_MEASUREMENT_REPORT = _dcm("126000", "Imaging Measurement Report", "CID 7021")
ECHO_REPORT = _loinc("42148-7", "Echocardiography Report", "CID 7000")
ECG_REPORT = _loinc(
    "11524-6",
    "EKG study",
    "LOINC",
    "CID 7000 prints it as 11524-0, whose check digit is wrong",
)
SUMMARY = _loinc("55112-7", "Summary", "CID 7001")
FINDINGS = _loinc("59776-5", "Findings", "CID 7001")
PROCEDURES = _loinc("55111-9", "Current Procedure Descriptions", "CID 7001")
CONCLUSION = _dcm("121077", "Conclusion", "CID 7002")
PROCEDURE_DESCRIPTION = _dcm("121065", "Procedure Description", "CID 7002")
LANGUAGE = _dcm("121049", "Language of Content Item and Descendants", "TID 1204")
ENGLISH_US = Concept(
    value="en-US",
    scheme="RFC5646",
    meaning="English (United States)",
    source="CID 5000",
    outside="CID 5000 is defined by RFC 5646; pydicom carries no table of it",
)
OBSERVER_TYPE = _dcm("121005", "Observer Type", "TID 1002")
DEVICE = _dcm("121007", "Device", "CID 270")
DEVICE_UID = _dcm("121012", "Device Observer UID", "TID 1004")
DEVICE_NAME = _dcm("121013", "Device Observer Name", "TID 1004")
DEVICE_MANUFACTURER = _dcm("121014", "Device Observer Manufacturer", "TID 1004")
DEVICE_MODEL = _dcm("121015", "Device Observer Model Name", "TID 1004")
DEVICE_SERIAL = _dcm("121016", "Device Observer Serial Number", "TID 1004")
PROCEDURE_REPORTED = _dcm("121058", "Procedure reported", "TID 1500")
TRANSTHORACIC_ECHO = _sct("433236007", "Transthoracic echocardiography", "CID 12001")
TWELVE_LEAD_ECG = _sct("268400002", "12-Lead ECG", "CID 3670")
IMAGE_LIBRARY = _dcm("111028", "Image Library", "TID 1600")
IMAGE_LIBRARY_GROUP = _dcm("126200", "Image Library Group", "TID 1600")
IMAGING_MEASUREMENTS = _dcm("126010", "Imaging Measurements", "TID 1500")
MEASUREMENT_GROUP = _dcm("125007", "Measurement Group", "TID 1501")
QUALITATIVE_EVALUATIONS = Concept(
    value="C0034375",
    scheme="UMLS",
    meaning="Qualitative Evaluations",
    source="TID 1500",
    outside="named by TID 1500 row 12; pydicom's tables hold context groups only",
)
TRACKING_IDENTIFIER = _dcm("112039", "Tracking Identifier", "TID 1501")
TRACKING_UID = _dcm("112040", "Tracking Unique Identifier", "TID 1501")
FINDING = _dcm("121071", "Finding", "TID 1501")
FINDING_SITE = _sct("363698007", "Finding Site", "TID 1501")
MEASUREMENT_METHOD = _sct("370129005", "Measurement Method", "TID 300")
DERIVATION = _dcm("121401", "Derivation", "TID 300")
VISUAL_EXPLANATION = _dcm("130401", "Visual explanation", "TID 1501")
SOURCE_OF_MEASUREMENT = _dcm("121112", "Source of Measurement", "CID 7551")
COMMENT = _dcm("121106", "Comment", "CID 12101")
FOR_RESEARCH = _dcm("113009", "For Research", "CID 7010")
KEY_OBJECT_DESCRIPTION = _dcm("113012", "Key Object Description", "TID 2010")
MODALITY = _dcm("121139", "Modality", "TID 1602")
ULTRASOUND = _dcm("US", "Ultrasound", "CID 29")
IMAGE_VIEW = _dcm("111031", "Image View", "TID 5200, PS3.17 N.2")
IMAGE_MODE = _sct("399264008", "Image mode", "PS3.17 N.2")

# Algorithm identification: TID 4019.
ALGORITHM_FAMILY = _dcm("111000", "Algorithm Family", "TID 4019")
ALGORITHM_NAME = _dcm("111001", "Algorithm Name", "TID 4019")
ALGORITHM_VERSION = _dcm("111003", "Algorithm Version", "TID 4019")
ALGORITHM_MANUFACTURER = _dcm("122405", "Algorithm Manufacturer", "TID 4019")
ALGORITHM_PARAMETERS = _dcm("111002", "Algorithm Parameters", "TID 4019")
ARTIFICIAL_INTELLIGENCE = _dcm("123110", "Artificial Intelligence", "CID 7162")

# Values of modifiers and of qualitative findings.
ESTIMATED = _sct("414135002", "Estimated", "CID 3627")
MEAN = _sct("373098007", "Mean", "CID 3627")
DISCS_SINGLE_PLANE = _dcm("125208", "Method of Disks, Single Plane", "CID 12227")
AREA_LENGTH_SINGLE_PLANE = _dcm("125205", "Area-Length Single Plane", "CID 12227")
PLANIMETRY = _dcm("125220", "Planimetry", "CID 12227")
STANDARD_DEVIATION = _sct("386136009", "Standard Deviation", "CID 7464")
PRESENT = _sct("52101004", "Present", "CID 240")
ABSENT = _sct("272519000", "Absent", "CID 240")
INDETERMINATE = _sct("82334004", "Indeterminate", "CID 4220")
SEVERITY = _sct("246112005", "Severity", "TID 1501")
SEVERE = _sct("24484000", "Severe", "CID 3716")

# What headers refer to.
PROCESSING_EQUIPMENT = _dcm("109102", "Processing Equipment", "CID 7005")
SOURCE_IMAGE = _dcm("121322", "Source image for image processing operation", "CID 7202")

# Where in the heart.
LEFT_VENTRICLE = _sct("87878005", "Left ventricle", "CID 4")
LEFT_ATRIUM = _sct("82471001", "Left atrium", "CID 4")
RIGHT_ATRIUM = _sct("73829009", "Right atrium", "CID 4")
HEART = _sct("80891009", "Heart", "CID 1000")
INFERIOR_VENA_CAVA = _sct("64131007", "Inferior vena cava", "CID 4")
ABDOMINAL_AORTA = _sct("7832008", "Abdominal aorta", "CID 4")

# Units.
_NOT_IN_CID = "a valid UCUM unit that no context group of PS3.16 lists"
PERCENT = _ucum("%", "Percent", "CID 83")
CENTIMETRE = _ucum("cm", "cm", "CID 7460")
SQUARE_CENTIMETRE = _ucum("cm2", "Centimeter**2", "CID 7461")
YEAR = _ucum("a", "year", "CID 7456")
MILLILITRE = _ucum("mL", "milliliter", "UCUM", _NOT_IN_CID)
KILOGRAM = _ucum("kg", "kilogram", "UCUM", _NOT_IN_CID)
MILLISECOND = _ucum("ms", "millisecond", "CID 7181")
MILLIVOLT = _ucum("mV", "mV", "CID 3045")
PER_MINUTE = _ucum("/min", "/min", "CID 7181")
SCORE = _ucum("{score}", "score", "UCUM annotation", _NOT_IN_CID)
BEATS = _ucum("{beats}", "beats", "UCUM annotation", _NOT_IN_CID)
CLIPS = _ucum("{clips}", "clips", "UCUM annotation", _NOT_IN_CID)

UNITS: Mapping[str, Concept] = MappingProxyType(
    {
        unit.value: unit
        for unit in (
            PERCENT,
            CENTIMETRE,
            SQUARE_CENTIMETRE,
            YEAR,
            MILLILITRE,
            KILOGRAM,
            MILLISECOND,
            MILLIVOLT,
            PER_MINUTE,
            SCORE,
        )
    }
)

# What a group of measurements is about. A finding of TID 1501 must not assert a disease that
# the group may go on to deny, so these are properties that can be observed.
LV_FUNCTION = _sct("250907009", "Left ventricular function", "SNOMED CT observable entity")
_NO_OBSERVABLE = "no observable entity in PS3.16 is neutral about this structure"
LA_SIZE = _own("AI-LA-SIZE", "Left atrial size", _NO_OBSERVABLE)
RA_SIZE = _own("AI-RA-SIZE", "Right atrial size", _NO_OBSERVABLE)
LEAD_SEARCH = _own("AI-LEAD-SEARCH", "Search for an intracardiac lead", _NO_OBSERVABLE)
PERSON_ESTIMATES = _own(
    "AI-PERSON",
    "Model estimates of the person",
    "must not be read as the patient's age, sex, weight or height",
)

CARDIAC_RHYTHM = _loinc("8884-9", "Cardiac Rhythm", "CID 3441")
CARDIAC_CONDUCTION = _own("AI-CONDUCTION", "Cardiac conduction", _NO_OBSERVABLE)
ECG_GLOBAL = _dcm("122158", "ECG Global Measurements", "TID 3713")
ECG_BY_LEAD = _dcm("122159", "ECG Lead Measurements", "TID 3714")

# Measurements. The codes of a method (MOD) are for values that were so computed.
LVEF = _loinc("18043-0", "Left Ventricular Ejection Fraction by US", "CID 12200")
LVEF_DISCS = _loinc(
    "79993-2", "Left ventricular ejection fraction single plane 4C (MOD)", "CID 12300"
)
LV_EDV = _loinc("18026-5", "Left Ventricular End Diastolic Volume", "CID 12200")
LV_EDV_DISCS = _loinc(
    "79999-9", "Left ventricular end diastolic volume single plane 4C (MOD)", "CID 12300"
)
LV_ESV = _loinc("18148-7", "Left Ventricular End Systolic Volume", "CID 12200")
LV_ESV_DISCS = _loinc(
    "80004-5", "Left ventricular end systolic volume single plane 4C (MOD)", "CID 12300"
)
LA_VOLUME = _sct("399235004", "Left Atrium Systolic Volume", "CID 12205")
LA_VOLUME_DISCS = _loinc(
    "79986-6", "Left atrial end systolic volume single plane 4C (MOD)", "CID 12300"
)
LA_AREA = _loinc("17977-0", "Left Atrium Area A4C view", "CID 12205")
RA_LENGTH = _loinc("80076-3", "Right atrial major axis dimension 4C", "CID 12300")

# Of an ECG. PS3.16 has the intervals in MDC alone, for what an electrocardiograph measured;
# LOINC names what was observed, by whatever means.
_NOT_IN_ECG_CID = "CID 3228 lists the codes of electrocardiographs (MDC) alone"
HEART_RATE = _loinc("8867-4", "Heart rate", "CID 12200")
PR_INTERVAL = _loinc("8625-6", "P-R Interval", "LOINC", _NOT_IN_ECG_CID)
QRS_DURATION = _loinc("8633-0", "QRS duration", "LOINC", _NOT_IN_ECG_CID)
QT_INTERVAL = _loinc("8634-8", "Q-T interval", "LOINC", _NOT_IN_ECG_CID)
_PER_LEAD = "the amplitudes of CID 3688 need a lead beside them, and viewers show a name alone"
J_AMPLITUDE = _own("AI-J-V5", "J-point amplitude, lead V5", _PER_LEAD)
R_AMPLITUDE = _own("AI-R-V5", "R-wave amplitude, lead V5", _PER_LEAD)
T_AMPLITUDE = _own("AI-T-V5", "T-wave amplitude, lead V5", _PER_LEAD)

# How far the beats and clips behind the study's own value lie apart. Each has a name of its own:
# viewers show a name and a number, and leave out the modifier that would call it a deviation.
_NO_SPREAD = "PS3.16 has no name that tells the spread of a value from the value itself"
EF_DEVIATION = _own("AI-EF-SD", "Standard deviation of the ejection fraction", _NO_SPREAD)
BEATS_AVERAGED = _own("AI-N-BEATS", "Beats averaged", _NO_SPREAD)
CLIPS_AVERAGED = _own("AI-N-CLIPS", "Clips averaged", _NO_SPREAD)

# Qualitative findings and the scores behind them. A score is not a probability.
_SCORE_WHY = "an uncalibrated model score; (111012, DCM) would claim a certainty"
MARKEDLY_ENLARGED = _sct("373128001", "Markedly enlarged cardiac chamber", "CID 3705")
LA_DILATION_SCORE = _own("AI-LADIL-SCORE", "Score for severe left-atrial dilation", _SCORE_WHY)
LVH = _sct(
    "55827005",
    "Left ventricular hypertrophy",
    "SNOMED CT disorder",
    "SNOMED CT has the disorder, the context groups of PS3.16 do not",
)
LVH_SCORE = _own("AI-LVH-SCORE", "Score for left ventricular hypertrophy", _SCORE_WHY)
LEAD = _own(
    "AI-LEAD",
    "Pacemaker or defibrillator lead",
    "(360129009, SCT) is the lead of a pacemaker only; the model does not tell them apart",
)
LEAD_SCORE = _own("AI-LEAD-SCORE", "Score for a pacemaker or defibrillator lead", _SCORE_WHY)

_NOT_IN_CID_3230 = "SNOMED CT has the disorder, the context groups of PS3.16 do not"
FIRST_DEGREE_AV_BLOCK = _sct("270492004", "First degree Atrioventricular block", "CID 3230")
RBBB = _sct("59118001", "Right bundle branch block", "CID 3230")
LBBB = _sct("63467002", "Left bundle branch block", "CID 3230")
SINUS_BRADYCARDIA = _sct("49710005", "Sinus bradycardia", "SNOMED CT disorder", _NOT_IN_CID_3230)
ATRIAL_FIBRILLATION = _sct("49436004", "Atrial Fibrillation", "CID 3230")
SINUS_TACHYCARDIA = _sct("11092001", "Sinus tachycardia", "SNOMED CT disorder", _NOT_IN_CID_3230)
FIRST_DEGREE_AV_BLOCK_SCORE = _own("AI-1DAVB-SCORE", "Score for first-degree AV block", _SCORE_WHY)
RBBB_SCORE = _own("AI-RBBB-SCORE", "Score for right bundle branch block", _SCORE_WHY)
LBBB_SCORE = _own("AI-LBBB-SCORE", "Score for left bundle branch block", _SCORE_WHY)
SINUS_BRADYCARDIA_SCORE = _own("AI-SB-SCORE", "Score for sinus bradycardia", _SCORE_WHY)
ATRIAL_FIBRILLATION_SCORE = _own("AI-AF-SCORE", "Score for atrial fibrillation", _SCORE_WHY)
SINUS_TACHYCARDIA_SCORE = _own("AI-ST-SCORE", "Score for sinus tachycardia", _SCORE_WHY)

# Model estimates of the person. (121033, DCM) Subject Age and its like are demographics.
_NOT_DEMOGRAPHIC = "a model's estimate; the standard codes mean the patient's own data"
AGE_ESTIMATE = _own("AI-AGE", "AI-estimated age", _NOT_DEMOGRAPHIC)
WEIGHT_ESTIMATE = _own("AI-WEIGHT", "AI-estimated weight", _NOT_DEMOGRAPHIC)
HEIGHT_ESTIMATE = _own("AI-HEIGHT", "AI-estimated height", _NOT_DEMOGRAPHIC)
MALE_SCORE = _own("AI-MALE-SCORE", "AI score for male sex", _NOT_DEMOGRAPHIC)

# The same, from a model that has only seen the simulator: a name that says so wherever it is
# shown, and a code that no worksheet takes for a measurement of the patient.
_DEMONSTRATION = "simulated evidence: must not be taken for a measurement of the patient"


def _simulated(value: str, meaning: str) -> Concept:
    return _own(f"AI-SIM-{value}", f"SIMULATED ONLY: {meaning}", _DEMONSTRATION)


SIM_EF = _simulated("EF", "left ventricular ejection fraction")
SIM_EDV = _simulated("EDV", "left ventricular end-diastolic volume")
SIM_ESV = _simulated("ESV", "left ventricular end-systolic volume")
SIM_LVH = _simulated("LVH", "left ventricular hypertrophy")
SIM_LVH_SCORE = _simulated("LVH-SC", "score for LV hypertrophy")
SIM_LA_VOLUME = _simulated("LA-VOL", "left atrial volume")
SIM_LA_AREA = _simulated("LA-AREA", "left atrial area")
SIM_LA_DILATION = _simulated("LADIL", "markedly enlarged left atrium")
SIM_LA_DILATION_SCORE = _simulated("LADIL-SC", "score for severe LA dilation")
SIM_RA_LENGTH = _simulated("RA-LEN", "right atrial major axis")
SIM_LEAD = _simulated("LEAD", "pacemaker or defibrillator lead")
SIM_LEAD_SCORE = _simulated("LEAD-SC", "score for a pacemaker or ICD lead")
SIM_AGE = _simulated("AGE", "AI-estimated age")
SIM_WEIGHT = _simulated("WEIGHT", "AI-estimated weight")
SIM_HEIGHT = _simulated("HEIGHT", "AI-estimated height")
SIM_MALE_SCORE = _simulated("MALE-SC", "AI score for male sex")
SIM_FIRST_DEGREE_AV_BLOCK = _simulated("1DAVB", "first-degree AV block")
SIM_FIRST_DEGREE_AV_BLOCK_SCORE = _simulated("1DAVB-SC", "score for first-degree AV block")
SIM_RBBB = _simulated("RBBB", "right bundle branch block")
SIM_RBBB_SCORE = _simulated("RBBB-SC", "score for right bundle branch block")
SIM_LBBB = _simulated("LBBB", "left bundle branch block")
SIM_LBBB_SCORE = _simulated("LBBB-SC", "score for left bundle branch block")
SIM_SINUS_BRADYCARDIA = _simulated("SB", "sinus bradycardia")
SIM_SINUS_BRADYCARDIA_SCORE = _simulated("SB-SC", "score for sinus bradycardia")
SIM_ATRIAL_FIBRILLATION = _simulated("AF", "atrial fibrillation")
SIM_ATRIAL_FIBRILLATION_SCORE = _simulated("AF-SC", "score for atrial fibrillation")
SIM_SINUS_TACHYCARDIA = _simulated("ST", "sinus tachycardia")
SIM_SINUS_TACHYCARDIA_SCORE = _simulated("ST-SC", "score for sinus tachycardia")
SIM_HEART_RATE = _simulated("HR", "heart rate")
SIM_PR_INTERVAL = _simulated("PR", "PR interval")
SIM_QRS_DURATION = _simulated("QRS", "QRS duration")
SIM_QT_INTERVAL = _simulated("QT", "QT interval")
SIM_J_AMPLITUDE = _simulated("J-V5", "J-point amplitude, lead V5")
SIM_R_AMPLITUDE = _simulated("R-V5", "R-wave amplitude, lead V5")
SIM_T_AMPLITUDE = _simulated("T-V5", "T-wave amplitude, lead V5")

# Intervals, views and clips in words and numbers.
_NO_INTERVAL = "CID 225 states offsets from a value, and readers give them the unit 1"
INTERVAL = _own("AI-INTERVAL95", "95 % prediction interval", _NO_INTERVAL)
INTERVAL_LOW = _own("AI-LOW95", "Lower bound of 95 % prediction interval", _NO_INTERVAL)
INTERVAL_HIGH = _own("AI-HIGH95", "Upper bound of 95 % prediction interval", _NO_INTERVAL)
VIEW_LABEL = _own("AI-VIEW-LABEL", "View label by model", "the label as the model gives it")
VIEW_SCORE = _own("AI-VIEW-SCORE", "View score", _SCORE_WHY)
CLIP = _own("AI-CLIP", "Clip", "a line of words about one clip of the study")
ECG = _own("AI-ECG", "ECG", "a line of words about one recording of the study")
MOVED_THE_VALUE = _own(
    "AI-MOVED",
    "Stretch of the ECG that moved the value most",
    "(121112, DCM) is all that was read; no code tells what an explanation found in it",
)

# Views: CID 12226, and what it lacks.
PLAX = _sct("399139001", "Parasternal long axis", "CID 12226")
RV_INFLOW = _sct("443082005", "Parasternal long axis view of the RV inflow tract", "CID 12226")
PSAX_AORTIC = _sct("399239005", "Parasternal short axis at the aortic valve level", "CID 12226")
PSAX = _sct("399306005", "Parasternal short axis", "CID 12226")
APICAL_4C = _sct("399214001", "Apical four chamber", "CID 12226")
FIVE_CHAMBER = _sct("398994001", "Five chamber", "CID 501")
APICAL_2C = _sct("399232001", "Apical two chamber", "CID 12226")
APICAL_LONG = _sct("399339008", "Apical long axis", "CID 12226")
SUBCOSTAL_LONG = _sct("399310008", "Subcostal long axis", "CID 12226")
AORTIC_ARCH = _sct("443562002", "Suprasternal long axis view of aortic arch", "CID 12226")
_NO_VIEW = "CID 12226 has no such view"
VIEW_IVC = _own("VIEW-SC-IVC", "Subcostal IVC", _NO_VIEW)
VIEW_ABDOMINAL_AORTA = _own("VIEW-SC-AO", "Subcostal or abdominal aorta", _NO_VIEW)
VIEW_OTHER = _own("VIEW-OTHER", "None of the known views", _NO_VIEW)
MODE_PW = _sct("261199008", "Doppler Pulsed", "CID 12224")
MODE_CW = _sct("261198000", "Doppler Continuous Wave", "CID 12224")
MODE_M = _sct("399155008", "M mode", "CID 12224")


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What a measurement group is about: its finding, and where. ``short`` is for a label."""

    short: str
    finding: Concept
    site: Concept


LEFT_VENTRICLE_SUBJECT = Subject(short="LV function", finding=LV_FUNCTION, site=LEFT_VENTRICLE)
LEFT_ATRIUM_SUBJECT = Subject(short="LA size", finding=LA_SIZE, site=LEFT_ATRIUM)
RIGHT_ATRIUM_SUBJECT = Subject(short="RA size", finding=RA_SIZE, site=RIGHT_ATRIUM)
LEAD_SUBJECT = Subject(short="Lead", finding=LEAD_SEARCH, site=HEART)
PERSON_SUBJECT = Subject(short="Person", finding=PERSON_ESTIMATES, site=HEART)
RHYTHM_SUBJECT = Subject(short="Rhythm", finding=CARDIAC_RHYTHM, site=HEART)
CONDUCTION_SUBJECT = Subject(short="Conduction", finding=CARDIAC_CONDUCTION, site=HEART)
INTERVALS_SUBJECT = Subject(short="Intervals", finding=ECG_GLOBAL, site=HEART)
AMPLITUDES_SUBJECT = Subject(short="Amplitudes", finding=ECG_BY_LEAD, site=HEART)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputCodes:
    """How an output is written.

    ``measured`` names the number (for a score: the score itself), ``by_discs`` the number where
    it was computed by single-plane discs, ``simulated`` the number where the model has only seen
    the simulator. ``qualitative`` is the finding that a score above its threshold makes Present,
    ``qualitative_simulated`` the same from such a model, ``severity`` how severe that finding
    is. Numbers are rounded to ``decimals``.
    """

    subject: Subject
    measured: Concept
    simulated: Concept
    decimals: int
    by_discs: Concept | None = None
    qualitative: Concept | None = None
    qualitative_simulated: Concept | None = None
    severity: Concept | None = None

    def name_of(self, method: Method, evidence: Evidence = Evidence.PATIENTS) -> Concept:
        """The concept for a number that came about by this method, on this evidence."""
        if evidence is not Evidence.PATIENTS:
            return self.simulated
        if method is Method.SINGLE_PLANE_DISCS and self.by_discs is not None:
            return self.by_discs
        return self.measured

    def finding_of(self, evidence: Evidence) -> Concept | None:
        """The qualitative finding on this evidence; None for an output that has none."""
        if evidence is not Evidence.PATIENTS:
            return self.qualitative_simulated
        return self.qualitative


METHODS: Mapping[Method, Concept] = MappingProxyType(
    {
        Method.SINGLE_PLANE_DISCS: DISCS_SINGLE_PLANE,
        Method.AREA_LENGTH: AREA_LENGTH_SINGLE_PLANE,
        Method.AREA: PLANIMETRY,
    }
)
"""Methods that have a code; that a network gave a number is told by the algorithm's."""


OUTPUTS: Mapping[str, OutputCodes] = MappingProxyType(
    {
        "ef": OutputCodes(
            subject=LEFT_VENTRICLE_SUBJECT,
            measured=LVEF,
            by_discs=LVEF_DISCS,
            simulated=SIM_EF,
            decimals=1,
        ),
        "edv": OutputCodes(
            subject=LEFT_VENTRICLE_SUBJECT,
            measured=LV_EDV,
            by_discs=LV_EDV_DISCS,
            simulated=SIM_EDV,
            decimals=1,
        ),
        "esv": OutputCodes(
            subject=LEFT_VENTRICLE_SUBJECT,
            measured=LV_ESV,
            by_discs=LV_ESV_DISCS,
            simulated=SIM_ESV,
            decimals=1,
        ),
        "lvh": OutputCodes(
            subject=LEFT_VENTRICLE_SUBJECT,
            measured=LVH_SCORE,
            simulated=SIM_LVH_SCORE,
            qualitative=LVH,
            qualitative_simulated=SIM_LVH,
            decimals=3,
        ),
        "la_volume": OutputCodes(
            subject=LEFT_ATRIUM_SUBJECT,
            measured=LA_VOLUME,
            by_discs=LA_VOLUME_DISCS,
            simulated=SIM_LA_VOLUME,
            decimals=1,
        ),
        "la_area": OutputCodes(
            subject=LEFT_ATRIUM_SUBJECT, measured=LA_AREA, simulated=SIM_LA_AREA, decimals=1
        ),
        "la_dilation": OutputCodes(
            subject=LEFT_ATRIUM_SUBJECT,
            measured=LA_DILATION_SCORE,
            simulated=SIM_LA_DILATION_SCORE,
            qualitative=MARKEDLY_ENLARGED,
            qualitative_simulated=SIM_LA_DILATION,
            severity=SEVERE,
            decimals=3,
        ),
        "ra_length": OutputCodes(
            subject=RIGHT_ATRIUM_SUBJECT, measured=RA_LENGTH, simulated=SIM_RA_LENGTH, decimals=2
        ),
        "lead": OutputCodes(
            subject=LEAD_SUBJECT,
            measured=LEAD_SCORE,
            simulated=SIM_LEAD_SCORE,
            qualitative=LEAD,
            qualitative_simulated=SIM_LEAD,
            decimals=3,
        ),
        "atrial_fibrillation": OutputCodes(
            subject=RHYTHM_SUBJECT,
            measured=ATRIAL_FIBRILLATION_SCORE,
            simulated=SIM_ATRIAL_FIBRILLATION_SCORE,
            qualitative=ATRIAL_FIBRILLATION,
            qualitative_simulated=SIM_ATRIAL_FIBRILLATION,
            decimals=3,
        ),
        "sinus_bradycardia": OutputCodes(
            subject=RHYTHM_SUBJECT,
            measured=SINUS_BRADYCARDIA_SCORE,
            simulated=SIM_SINUS_BRADYCARDIA_SCORE,
            qualitative=SINUS_BRADYCARDIA,
            qualitative_simulated=SIM_SINUS_BRADYCARDIA,
            decimals=3,
        ),
        "sinus_tachycardia": OutputCodes(
            subject=RHYTHM_SUBJECT,
            measured=SINUS_TACHYCARDIA_SCORE,
            simulated=SIM_SINUS_TACHYCARDIA_SCORE,
            qualitative=SINUS_TACHYCARDIA,
            qualitative_simulated=SIM_SINUS_TACHYCARDIA,
            decimals=3,
        ),
        "first_degree_av_block": OutputCodes(
            subject=CONDUCTION_SUBJECT,
            measured=FIRST_DEGREE_AV_BLOCK_SCORE,
            simulated=SIM_FIRST_DEGREE_AV_BLOCK_SCORE,
            qualitative=FIRST_DEGREE_AV_BLOCK,
            qualitative_simulated=SIM_FIRST_DEGREE_AV_BLOCK,
            decimals=3,
        ),
        "rbbb": OutputCodes(
            subject=CONDUCTION_SUBJECT,
            measured=RBBB_SCORE,
            simulated=SIM_RBBB_SCORE,
            qualitative=RBBB,
            qualitative_simulated=SIM_RBBB,
            decimals=3,
        ),
        "lbbb": OutputCodes(
            subject=CONDUCTION_SUBJECT,
            measured=LBBB_SCORE,
            simulated=SIM_LBBB_SCORE,
            qualitative=LBBB,
            qualitative_simulated=SIM_LBBB,
            decimals=3,
        ),
        "heart_rate": OutputCodes(
            subject=INTERVALS_SUBJECT, measured=HEART_RATE, simulated=SIM_HEART_RATE, decimals=0
        ),
        "pr_interval": OutputCodes(
            subject=INTERVALS_SUBJECT, measured=PR_INTERVAL, simulated=SIM_PR_INTERVAL, decimals=0
        ),
        "qrs_duration": OutputCodes(
            subject=INTERVALS_SUBJECT, measured=QRS_DURATION, simulated=SIM_QRS_DURATION, decimals=0
        ),
        "qt_interval": OutputCodes(
            subject=INTERVALS_SUBJECT, measured=QT_INTERVAL, simulated=SIM_QT_INTERVAL, decimals=0
        ),
        "j_amplitude": OutputCodes(
            subject=AMPLITUDES_SUBJECT, measured=J_AMPLITUDE, simulated=SIM_J_AMPLITUDE, decimals=2
        ),
        "r_amplitude": OutputCodes(
            subject=AMPLITUDES_SUBJECT, measured=R_AMPLITUDE, simulated=SIM_R_AMPLITUDE, decimals=2
        ),
        "t_amplitude": OutputCodes(
            subject=AMPLITUDES_SUBJECT, measured=T_AMPLITUDE, simulated=SIM_T_AMPLITUDE, decimals=2
        ),
        "age": OutputCodes(
            subject=PERSON_SUBJECT, measured=AGE_ESTIMATE, simulated=SIM_AGE, decimals=1
        ),
        "sex": OutputCodes(
            subject=PERSON_SUBJECT, measured=MALE_SCORE, simulated=SIM_MALE_SCORE, decimals=3
        ),
        "weight": OutputCodes(
            subject=PERSON_SUBJECT, measured=WEIGHT_ESTIMATE, simulated=SIM_WEIGHT, decimals=1
        ),
        "height": OutputCodes(
            subject=PERSON_SUBJECT, measured=HEIGHT_ESTIMATE, simulated=SIM_HEIGHT, decimals=1
        ),
    }
)
"""The outputs of :mod:`models.tasks`, in the order in which a reader meets them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewCodes:
    """A view as an image view or an image mode. Not ``exact``: the nearest that DICOM has."""

    name: Concept
    value: Concept
    title: str
    exact: bool = True
    site: Concept | None = None


def _view(
    value: Concept, title: str, *, exact: bool = True, site: Concept | None = None
) -> ViewCodes:
    return ViewCodes(name=IMAGE_VIEW, value=value, title=title, exact=exact, site=site)


VIEWS: Mapping[View, ViewCodes] = MappingProxyType(
    {
        View.PSLA: _view(PLAX, "parasternal long axis"),
        View.RV_INFLOW: _view(RV_INFLOW, "right-ventricular inflow"),
        View.SAX_BASAL: _view(PSAX_AORTIC, "short axis at the base", exact=False),
        View.SAX_MID: _view(PSAX, "short axis at mid level", exact=False),
        View.A4C: _view(APICAL_4C, "apical four-chamber"),
        View.A5C: _view(FIVE_CHAMBER, "apical five-chamber"),
        View.A2C: _view(APICAL_2C, "apical two-chamber"),
        View.A3C: _view(APICAL_LONG, "apical long axis"),
        View.SUB4C: _view(SUBCOSTAL_LONG, "subcostal four-chamber", exact=False),
        View.IVC: _view(VIEW_IVC, "subcostal inferior vena cava", site=INFERIOR_VENA_CAVA),
        View.SUBAO: _view(
            VIEW_ABDOMINAL_AORTA, "subcostal or abdominal aorta", site=ABDOMINAL_AORTA
        ),
        View.SUPAO: _view(AORTIC_ARCH, "suprasternal aorta"),
        View.PW: ViewCodes(name=IMAGE_MODE, value=MODE_PW, title="pulsed-wave Doppler"),
        View.CW: ViewCodes(name=IMAGE_MODE, value=MODE_CW, title="continuous-wave Doppler"),
        View.M_MODE: ViewCodes(name=IMAGE_MODE, value=MODE_M, title="M-mode"),
        View.OTHER: _view(VIEW_OTHER, "none of the known views"),
    }
)
"""Each view of :mod:`models.views` in DICOM's words."""

TABLE: Mapping[tuple[str, str], Concept] = MappingProxyType(
    {
        (concept.value, concept.scheme): concept
        for concept in tuple(globals().values())
        if isinstance(concept, Concept)
    }
)
"""Every concept above, by code value and scheme."""

DEMOGRAPHIC_CODES: frozenset[tuple[str, str]] = frozenset(
    {
        ("121031", "DCM"),  # Subject Birth Date
        ("121032", "DCM"),  # Subject Sex
        ("121033", "DCM"),  # Subject Age
        ("29463-7", "LN"),  # Body weight
        ("3141-9", "LN"),  # Body weight measured
        ("8302-2", "LN"),  # Body height
        ("8277-6", "LN"),  # Body surface area
        ("27113001", "SCT"),  # Body weight
        ("50373000", "SCT"),  # Body height
        ("397669002", "SCT"),  # Age
        ("424144002", "SCT"),  # Current chronological age
        ("263495000", "SCT"),  # Gender
    }
)
"""Codes that consumers take for the patient's own data: never in a result of ours."""
