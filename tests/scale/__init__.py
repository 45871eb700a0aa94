"""How much of everything a hospital, fifty, or a country needs: a model, judged by one machine.

:mod:`~tests.scale.constants` reads what was measured, :mod:`~tests.scale.assumptions` holds what
nobody measured, :mod:`~tests.scale.arrivals` makes a day of studies of it, and
:mod:`~tests.scale.model` lets them run through nodes. ``make scale`` writes ``docs/scale.md``.
"""
