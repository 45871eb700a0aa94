"""12-lead ECGs: leads in millivolts in, findings and explanations out.

- :mod:`models.ecg.recording`: what a recording is, whatever it was read from
- :mod:`models.ecg.reading`: a DICOM object, a WFDB record or a CSV file -> a recording
- :mod:`models.ecg.quality`: what of it cannot be trusted
- :mod:`models.ecg.beats`: R peaks, the median beat, where waves begin and end
- :mod:`models.ecg.inputs`: what a network sees of it
- :mod:`models.ecg.reader`: a pack and a recording -> findings
- :mod:`models.ecg.explain`: where in the recording a value came from
- :mod:`models.ecg.simulator`: recordings of known rhythm, intervals and amplitudes
"""
