"""Explanations of 12-lead ECGs: methods, pictures on ECG paper, checks and summaries."""
