"""The tables of the statement, each a function that gives Markdown, by name in :data:`TABLES`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydicom.datadict import dictionary_description
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE

from models.views import View
from node.conformance.content import template_rows
from node.conformance.objects import attribute_rows, private_rows
from node.conformance.samples import Samples, clip_samples, ecg_samples, samples
from node.delivery import association, commitment, dimse, dimse_archive, outbox
from node.delivery.sending import Outgoing, speaks_of_class
from node.doors.contexts import (
    CAPTURE_CLASSES,
    COMMITMENT_CLASS,
    ECG_CLASSES,
    OTHER_CLASSES,
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    ULTRASOUND_CLASSES,
    VERIFICATION_CLASS,
)
from node.fetching import answers, run
from node.fetching import dimse as fetch
from node.intake import Status
from node.results import alternatives, codes
from node.results.iods import IODS
from node.results.objects import IMPLEMENTATION_CLASS_UID, PRIVATE_CREATOR, PRIVATE_GROUP
from node.sections import (
    AnalysisSettings,
    CaptureSettings,
    DeliverySettings,
    DicomwebDestination,
    DicomwebSettings,
    DicomwebSource,
    DimseDestination,
    DimseSettings,
    DimseSource,
    Machine,
    StudySettings,
)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [
        f"| {' | '.join(head)} |",
        f"| {' | '.join('---' for _ in head)} |",
        *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ") or " "


def _class_name(uid: str) -> str:
    return STORAGE_CLASSES.get(UID(uid)) or UID(uid).name


# Services.


def _network_services() -> str:
    sent = [UID(uid) for uid in samples()]
    rows = [
        ("Verification", VERIFICATION_CLASS, "no", "yes"),
        ("Storage Commitment Push Model", COMMITMENT_CLASS, "yes", "yes"),
        (
            "Study Root Query/Retrieve Information Model - FIND",
            UID(commitment._FIND),
            "yes",
            "no",
        ),
        (
            "Study Root Query/Retrieve Information Model - GET",
            UID(fetch.GET),
            "yes",
            "no",
        ),
        (
            "Study Root Query/Retrieve Information Model - MOVE",
            UID(fetch.MOVE),
            "yes",
            "no",
        ),
    ]
    rows += [
        (
            _class_name(uid),
            uid,
            "yes" if uid in sent else "no",
            "yes" if uid in STORAGE_CLASSES else "no",
        )
        for uid in dict.fromkeys((*STORAGE_CLASSES, *sent))
    ]
    return _table(("SOP class", "UID", "SCU", "SCP"), rows)


_TREATMENT = (
    (ULTRASOUND_CLASSES, "kept; its view is named, an apical four-chamber clip is analysed"),
    (CAPTURE_CLASSES, "kept; treated as ultrasound where Modality is US"),
    (ECG_CLASSES, "kept; analysed where twelve leads can be read of it"),
    (OTHER_CLASSES, "kept; not looked at"),
)


def _received_classes() -> str:
    return _table(
        ("SOP class", "UID", "what becomes of an object"),
        (
            (name, uid, treatment)
            for classes, treatment in _TREATMENT
            for uid, name in classes.items()
        ),
    )


def _received_syntaxes() -> str:
    return _table(
        ("order", "transfer syntax", "UID"),
        ((number, uid.name, uid) for number, uid in enumerate(TRANSFER_SYNTAXES, start=1)),
    )


def _sent_contexts() -> str:
    rows = []
    for uid, objects in samples().items():
        own = str(objects[0].file_meta.TransferSyntaxUID)
        outgoing = Outgoing(
            delivery_id=0,
            path=Path(),
            sop_class_uid=uid,
            sop_instance_uid="",
            transfer_syntax_uid=own,
        )
        contexts = (
            ", ".join(f"{UID(syntax).name} ({syntax})" for syntax in context.transfer_syntax)
            for context in dimse._contexts([outgoing])
        )
        rows.append((_class_name(uid), uid, "; ".join(f"one context: {each}" for each in contexts)))
    return _table(("SOP class", "UID", "presentation contexts proposed"), rows)


def _other_forms() -> str:
    return _table(
        ("a result of class", "where it is refused goes as"),
        (
            (_class_name(uid), ", then ".join(_class_name(form.sop_class_uid) for form in forms))
            for uid, forms in alternatives._FORMS.items()
        ),
    )


def _implementation() -> str:
    meta = next(iter(samples().values()))[0].file_meta
    name = str(meta.ImplementationVersionName).split()[0]
    return _table(
        ("item", "value"),
        (
            ("Implementation Class UID of files that the node writes", IMPLEMENTATION_CLASS_UID),
            ("Implementation Version Name of these files", f"`{name}` and the version"),
            (
                "Implementation Class UID and Version Name in association negotiation",
                (
                    f"{AE().implementation_class_uid}, `PYNETDICOM_` and its version "
                    "(those of the network library)"
                ),
            ),
        ),
    )


# Associations.


def _acceptor() -> str:
    return _table(
        ("policy", "key in `[dimse]`", "default"),
        (
            ("application context", "-", "1.2.840.10008.3.1.1.1"),
            ("associations open at once", "`max_associations`", _default("max_associations")),
            (
                "of these from one address",
                "`max_associations_per_peer`",
                _default("max_associations_per_peer"),
            ),
            ("longest PDU received, in bytes", "`maximum_pdu_size`", _default("maximum_pdu_size")),
            ("longest silence", "`network_timeout_s`", _seconds("network_timeout_s")),
            ("longest wait in association set-up", "`acse_timeout_s`", _seconds("acse_timeout_s")),
            ("longest wait for a DIMSE message", "`dimse_timeout_s`", _seconds("dimse_timeout_s")),
            ("longest time for one PDU to arrive", "`pdu_timeout_s`", _seconds("pdu_timeout_s")),
            ("asynchronous operations window", "-", "not negotiated: one operation at a time"),
            ("SCP/SCU role selection", "-", "for storage commitment: both roles"),
            ("user identity, extended negotiation", "-", "not supported"),
            ("called AE title", "`check_called_ae`", "no: any is accepted"),
            ("calling AE title", "`allowed_calling_aes`", "empty: any is accepted"),
            ("calling address", "`allowed_addresses`", "empty: any is accepted"),
            ("TLS, client certificates", "`[dimse.tls]`", "none: in the clear"),
        ),
    )  # fmt: skip


def _initiator() -> str:
    timeout = DimseDestination.model_fields["timeout_s"].default
    return _table(
        ("policy", "value"),
        (
            ("application context", "1.2.840.10008.3.1.1.1"),
            ("associations to one destination at once", "1 to store, 1 to ask"),
            (
                "results on one association",
                f"{outbox._BATCH} at most; the rest follows on the next",
            ),
            ("longest PDU that is received, in bytes", AE().maximum_pdu_size),
            (
                "longest wait for connection and association set-up",
                f"{min(association._CONNECT_S, timeout):g} s",
            ),
            (
                "longest wait for a DIMSE message (`timeout_s` of the destination)",
                f"{timeout:g} s, and the time in which the object goes out at 100 kB/s",
            ),
            (
                "wait for N-EVENT-REPORT on the association of N-ACTION",
                f"{dimse_archive._LINGER_S:g} s",
            ),
            ("asynchronous operations window", "not negotiated: one operation at a time"),
            (
                "SCP/SCU role selection",
                "SCP role for what a C-GET brings (4.5); else default roles",
            ),
            ("user identity, extended negotiation", "not supported"),
        ),
    )


def _default(key: str) -> object:
    return DimseSettings.model_fields[key].default


def _seconds(key: str) -> str:
    return f"{_default(key):g} s"


# Statuses.

_STATUSES: Mapping[Status, tuple[str, str]] = MappingProxyType(
    {
        Status.SUCCESS: (
            "Success",
            (
                "The object is kept: file and folder are synced to disk and the row is committed. "
                "Also for one that was kept before. An object with a known UID and other content "
                "is quarantined; the first stays as it was."
            ),
        ),
        Status.OUT_OF_RESOURCES: (
            "Refused: out of resources",
            (
                "The disk or the database does not take it now. Nothing is kept; the sender may "
                "try again."
            ),
        ),
        Status.DOES_NOT_MATCH_CLASS: (
            "Error: data set does not match SOP class",
            (
                "A UID is missing or malformed, or class or instance are not those of the command. "
                "Quarantined."
            ),
        ),
        Status.CANNOT_UNDERSTAND: (
            "Error: cannot understand",
            "Not a DICOM data set that can be parsed. Quarantined.",
        ),
        Status.CLASS_NOT_SUPPORTED: (
            "SOP class not supported",
            "The data set's own class is none of those above. Quarantined.",
        ),
        Status.PROCESSING_FAILURE: (
            "Processing failure",
            "An error of the node; the sender may try again.",
        ),
    }
)


def _storage_statuses() -> str:
    return _table(
        ("status", "meaning", "when, and what the node does"),
        ((f"{status:04X}", *_STATUSES[status]) for status in Status),
    )


def _storage_answers() -> str:
    again = "tried again, after pauses that double"
    rows: list[tuple[str, str, str]] = [("0000", "Success", "stored")]
    rows += [
        (f"{code:04X}", f"Warning: {words}", "stored; the status is kept with the delivery")
        for code, words in dimse._WARNINGS.items()
    ]
    about_class = ", ".join(code for code in ("0122", "A900") if speaks_of_class(int(code, 16)))
    rows += [
        (
            f"{about_class}, or no accepted presentation context",
            "the class is refused",
            (
                "sent in another form where there is one, and remembered for the destination; else "
                f"{again}"
            ),
        ),
        ("any other", "refused or failed", again),
        (
            "none",
            "no answer, or the association is lost",
            f"{again}; where it can be queried, it is first asked whether it has the object",
        ),
    ]
    return _table(("status", "meaning", "what the node does"), rows)


def _commitment_answers() -> str:
    def treatment(reason: int) -> str:
        if reason == commitment._DUPLICATE_TRANSACTION:
            return "asked for in a new transaction"
        if reason == commitment._CLASS_NOT_SUPPORTED:
            return "looked for by a query (`required`: sent again)"
        return "sent again, after pauses that double"

    rows = [("none: in Referenced SOP Sequence", "it keeps the object", "delivered")]
    rows += [
        (f"{reason:04X}", words, treatment(reason))
        for reason, words in commitment.FAILURE_REASONS.items()
    ]
    rows.append(("any other", "not known here", treatment(0)))
    return _table(("failure reason", "meaning", "what the node does"), rows)


# Fetching.


def _query_keys() -> str:
    levels = (
        ("STUDY", answers.STUDY_KEYS, _MATCHED),
        ("SERIES", answers.SERIES_KEYS, ("StudyInstanceUID",)),
        ("IMAGE", answers.OBJECT_KEYS, ("StudyInstanceUID", "SeriesInstanceUID")),
    )
    return _table(
        ("level", "matched by", "asked for"),
        ((level, _listed(matched), _listed(keys)) for level, keys, matched in levels),
    )


_MATCHED = ("StudyInstanceUID", "StudyDate", "AccessionNumber", "ModalitiesInStudy")


def _listed(keywords: Sequence[str]) -> str:
    return ", ".join(dictionary_description(keyword) for keyword in keywords)


def _fetched_contexts() -> str:
    rows = []
    for what, classes in (
        ("ultrasound classes alone", list(ULTRASOUND_CLASSES)),
        ("one class is not known: all classes of 4.1.1", []),
    ):
        contexts = fetch.storage_contexts(classes)
        alone = [one for one in contexts if len(one.transfer_syntax or ()) == 1]
        rows.append((what, len(contexts) - len(alone), len(alone)))
    return _table(
        (
            "what is wanted",
            "contexts with Explicit and Implicit VR Little Endian",
            "contexts with one other transfer syntax",
        ),
        rows,
    )


def _fetch_answers() -> str:
    again = "what did not come is asked for once more, instance by instance"
    rows = [
        ("0000", "Success", "what was asked for and did not come counts as missing"),
        *((f"{code:04X}", words, again) for code, words in fetch._WORDS.items()),
        (", ".join(f"{code:04X}" for code in fetch._NO_SERVICE), "no such service", "ends"),
        ("any other", "refused or failed", again),
        (
            "none",
            "no answer, or the association is lost",
            f"after a pause that doubles, {again}; {run._TRIES} tries in vain to reach it end all",
        ),
    ]
    rows = [
        (code, words, "ends: it must know our AE title, address and port")
        if code == f"{fetch._UNKNOWN_DESTINATION:04X}"
        else (code, words, treatment)
        for code, words, treatment in rows
    ]
    return _table(("status", "meaning", "what the node does"), rows)


# Configuration.

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("[dimse]", DimseSettings),
    ("[[machines]]", Machine),
    ("[dicomweb]", DicomwebSettings),
    ("[[destinations]] kind dimse", DimseDestination),
    ("[[destinations]] kind dicomweb", DicomwebDestination),
    ("[[archives]] kind dimse", DimseSource),
    ("[[archives]] kind dicomweb", DicomwebSource),
    ("[study]", StudySettings),
    ("[capture]", CaptureSettings),
    ("[delivery]", DeliverySettings),
)


def _parameters() -> str:
    rows = [
        (f"`{section}`", f"`{key}`", _default_of(field), field.description or "")
        for section, model in _SECTIONS
        for key, field in model.model_fields.items()
        if key not in ("kind",)
    ]
    about = AnalysisSettings.model_fields
    rows += [
        ("`[analysis]`", f"`{key}`", _default_of(field), field.description or "")
        for key, field in about.items()
        if key.startswith("allow_")
    ]
    return _table(("section", "key", "default", "meaning"), rows)


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "must be set"
    if field.default_factory is not None:
        return "see settings"
    value = field.default
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return "empty" if not value else ", ".join(str(each) for each in value)
    return "none" if value in (None, "") else str(value)


# Objects.


def _made_objects() -> str:
    return _table(
        ("IOD", "PS3.3", "SOP class UID", "transfer syntax as made"),
        (
            (
                IODS[uid].name,
                IODS[uid].clause,
                uid,
                UID(objects[0].file_meta.TransferSyntaxUID).name,
            )
            for uid, objects in samples().items()
        ),
    )


def _attributes(sop_class: str) -> str:
    return _table(
        ("module", "attribute", "tag", "VR", "type", "presence", "value"),
        attribute_rows(IODS[sop_class], samples()[sop_class]),
    )


def _private_attributes() -> str:
    return f"Group {PRIVATE_GROUP:04X}, private creator `{PRIVATE_CREATOR}`.\n\n" + _table(
        ("element", "VR", "in", "meaning"),
        private_rows(samples()),
    )


def _template(sop_class: str, of: Callable[[], Samples]) -> str:
    return _table(
        ("level", "relationship", "value type", "concept name", "value"),
        template_rows(of()[sop_class]),
    )


# Codes.


def _outputs() -> str:
    rows = []
    for output, written in codes.OUTPUTS.items():
        for concept, when in (
            (written.measured, "by another method" if written.by_discs else "the number"),
            (written.by_discs, "computed by single-plane discs"),
            (written.qualitative, "the finding that its threshold decides"),
            (written.simulated, "evidence from the simulator only"),
        ):
            if concept is not None:
                rows.append((output, when, _triplet(concept), _triplet(written.subject.finding)))
    return _table(("output", "when", "concept", "group's finding"), rows)


def _views() -> str:
    return _table(
        ("view", "concept name", "value", "exact"),
        (
            (
                view.value,
                _triplet(codes.VIEWS[view].name),
                _triplet(codes.VIEWS[view].value),
                "yes" if codes.VIEWS[view].exact else "nearest",
            )
            for view in View
        ),
    )


def _standard_codes() -> str:
    return _table(
        ("code", "scheme", "meaning", "from", "remark"),
        (
            (concept.value, concept.scheme, concept.meaning, concept.source, concept.outside)
            for concept in codes.TABLE.values()
            if concept.scheme != codes.PRIVATE_SCHEME
        ),
    )


def _private_codes() -> str:
    return (
        f'Coding scheme designator `{codes.PRIVATE_SCHEME}`, "{codes.PRIVATE_SCHEME_NAME}".\n\n'
        + _table(
            ("code", "meaning", "why no standard code"),
            (
                (concept.value, concept.meaning, concept.outside)
                for concept in codes.TABLE.values()
                if concept.scheme == codes.PRIVATE_SCHEME
            ),
        )
    )


def _triplet(concept: codes.Concept) -> str:
    return f'({concept.value}, {concept.scheme}, "{concept.meaning}")'


TABLES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "network-services": _network_services,
        "received-classes": _received_classes,
        "received-syntaxes": _received_syntaxes,
        "sent-contexts": _sent_contexts,
        "other-forms": _other_forms,
        "implementation": _implementation,
        "acceptor": _acceptor,
        "initiator": _initiator,
        "storage-statuses": _storage_statuses,
        "storage-answers": _storage_answers,
        "commitment-answers": _commitment_answers,
        "query-keys": _query_keys,
        "fetched-contexts": _fetched_contexts,
        "fetch-answers": _fetch_answers,
        "parameters": _parameters,
        "made-objects": _made_objects,
        "attributes-comprehensive-3d-sr": lambda: _attributes(Comprehensive3DSRStorage),
        "attributes-basic-text-sr": lambda: _attributes(BasicTextSRStorage),
        "attributes-multi-frame-capture": lambda: _attributes(
            MultiFrameTrueColorSecondaryCaptureImageStorage
        ),
        "attributes-capture": lambda: _attributes(SecondaryCaptureImageStorage),
        "attributes-key-object": lambda: _attributes(KeyObjectSelectionDocumentStorage),
        "private-attributes": _private_attributes,
        "template-1500": lambda: _template(Comprehensive3DSRStorage, clip_samples),
        "template-1500-ecg": lambda: _template(Comprehensive3DSRStorage, ecg_samples),
        "template-2000": lambda: _template(BasicTextSRStorage, clip_samples),
        "template-2000-ecg": lambda: _template(BasicTextSRStorage, ecg_samples),
        "template-2010": lambda: _template(KeyObjectSelectionDocumentStorage, samples),
        "outputs": _outputs,
        "views": _views,
        "codes": _standard_codes,
        "private-codes": _private_codes,
    }
)
"""Every table of the statement, by the name in its mark."""
