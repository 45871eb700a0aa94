"""What the DIMSE door accepts: SOP classes and, in the order of our preference, transfer syntaxes.

The classes are those that echo machines send by their conformance statements, and 12-lead ECGs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

ULTRASOUND_CLASSES: Mapping[UID, str] = MappingProxyType(
    {
        UID("1.2.840.10008.5.1.4.1.1.3.1"): "Ultrasound Multi-frame Image Storage",
        UID("1.2.840.10008.5.1.4.1.1.6.1"): "Ultrasound Image Storage",
        UID("1.2.840.10008.5.1.4.1.1.3"): "Ultrasound Multi-frame Image Storage (Retired)",
        UID("1.2.840.10008.5.1.4.1.1.6"): "Ultrasound Image Storage (Retired)",
    }
)
"""Images that a model may look at."""

CAPTURE_CLASSES: Mapping[UID, str] = MappingProxyType(
    {
        UID("1.2.840.10008.5.1.4.1.1.7"): "Secondary Capture Image Storage",
        UID("1.2.840.10008.5.1.4.1.1.7.1"): "Multi-frame Single Bit Secondary Capture",
        UID("1.2.840.10008.5.1.4.1.1.7.2"): "Multi-frame Grayscale Byte Secondary Capture",
        UID("1.2.840.10008.5.1.4.1.1.7.3"): "Multi-frame Grayscale Word Secondary Capture",
        UID("1.2.840.10008.5.1.4.1.1.7.4"): "Multi-frame True Color Secondary Capture",
    }
)
"""Screens that a machine saved: kept; read as clips where the modality is ultrasound."""

ECG_CLASSES: Mapping[UID, str] = MappingProxyType(
    {
        UID("1.2.840.10008.5.1.4.1.1.9.1.1"): "12-lead ECG Waveform Storage",
        UID("1.2.840.10008.5.1.4.1.1.9.1.2"): "General ECG Waveform Storage",
        UID("1.2.840.10008.5.1.4.1.1.9.1.3"): "Ambulatory ECG Waveform Storage",
        UID("1.2.840.10008.5.1.4.1.1.9.1.4"): "General 32-bit ECG Waveform Storage",
    }
)
"""Electrocardiograms."""

OTHER_CLASSES: Mapping[UID, str] = MappingProxyType(
    {
        UID("1.2.840.10008.5.1.4.1.1.6.2"): "Enhanced US Volume Storage",
        UID("1.2.840.10008.5.1.4.1.1.6.3"): "Photoacoustic Image Storage",
        UID("1.2.840.10008.5.1.4.1.1.66"): "Raw Data Storage",
        UID("1.2.840.10008.5.1.4.1.1.88.11"): "Basic Text SR Storage",
        UID("1.2.840.10008.5.1.4.1.1.88.22"): "Enhanced SR Storage",
        UID("1.2.840.10008.5.1.4.1.1.88.33"): "Comprehensive SR Storage",
        UID("1.2.840.10008.5.1.4.1.1.88.34"): "Comprehensive 3D SR Storage",
        UID("1.2.840.10008.5.1.4.1.1.88.72"): "Simplified Adult Echo SR Storage",
        UID("1.2.840.10008.5.1.4.1.1.88.59"): "Key Object Selection Document Storage",
        UID("1.2.840.10008.5.1.4.1.1.104.1"): "Encapsulated PDF Storage",
    }
)
"""What else comes with an echo study: kept, and not looked at."""

STORAGE_CLASSES: Mapping[UID, str] = MappingProxyType(
    {**ULTRASOUND_CLASSES, **CAPTURE_CLASSES, **ECG_CLASSES, **OTHER_CLASSES}
)
"""Every class that the door accepts, with its name."""

VERIFICATION_CLASS = UID("1.2.840.10008.1.1")
"""C-ECHO."""

COMMITMENT_CLASS = UID("1.2.840.10008.1.20.1")
"""Storage Commitment Push Model: asked of us by machines, and reported to us by archives."""

COMMITMENT_INSTANCE = UID("1.2.840.10008.1.20.1.1")
"""The well-known instance of that class (PS3.4 J.3.5)."""

COMMITMENT_SYNTAXES: tuple[UID, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
"""Of its data sets, which are lists of UIDs."""

RETIRED_KEYWORDS: Mapping[UID, str] = MappingProxyType(
    {
        UID("1.2.840.10008.5.1.4.1.1.3"): "UltrasoundMultiFrameImageStorageRetired",
        UID("1.2.840.10008.5.1.4.1.1.6"): "UltrasoundImageStorageRetired",
    }
)
"""Classes that the network library does not know by itself; older machines still send them."""

TRANSFER_SYNTAXES: tuple[UID, ...] = (
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    RLELossless,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
"""In the order in which the door chooses. Compressed ones first: the acceptor's order decides, and
with an uncompressed one on top a machine would unpack its clips and send ten times the bytes."""
