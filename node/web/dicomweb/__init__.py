"""DICOMweb (PS3.18): objects come in by STOW-RS, are found by QIDO-RS and given by WADO-RS."""
