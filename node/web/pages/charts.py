"""Small charts of the last day, drawn here: bars an hour wide, without a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from node.web.pages.rendering import duration
from storage.catalog import HourRecord

HOURS = 24

_WIDTH, _HEIGHT = 420, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 6, 10, 24
_GAP = 3
_EACH = 6  # hours between two that are named
_HALF_A_CLOCK = 18  # half as wide as a name


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A chart: its title, a sentence that says what it shows, and the picture as SVG."""

    title: str
    summary: str
    svg: Markup


def edges(now: datetime, hours: int = HOURS) -> tuple[datetime, ...]:
    """The beginnings of the last hours by this machine's clock, and the end of the present one."""
    begin = now.astimezone().replace(minute=0, second=0, microsecond=0)
    return tuple(begin + timedelta(hours=index + 1) for index in range(-hours, 1))


def charts(hours: Sequence[HourRecord]) -> tuple[Chart, ...]:
    """What came, what was analysed, and how long reports took."""
    return (
        _chart("Images received", hours, lambda hour: hour.received, _counted),
        _chart("Clips analysed", hours, lambda hour: hour.analysed, _counted),
        _latency(hours),
    )


def _counted(value: float) -> str:
    return f"{value:.0f}"


def _chart(
    title: str,
    hours: Sequence[HourRecord],
    value: Callable[[HourRecord], float],
    shown: Callable[[float], str],
) -> Chart:
    values = [value(hour) for hour in hours]
    total, most = sum(values), max(values, default=0)
    busiest = hours[values.index(most)] if most else None
    summary = f"{total:.0f} in {len(hours)} hours" + (
        f", most {most:.0f} in the hour from {_clock(busiest.begins_at)}." if busiest else "."
    )
    bars = [(item, shown(item), "bar") for item in values]
    return Chart(
        title=title,
        summary=summary,
        svg=_svg(f"{title}: {summary}", hours, [bars], _round(most), shown),
    )


def _latency(hours: Sequence[HourRecord]) -> Chart:
    slowest = [hour.slowest_s or 0.0 for hour in hours]
    medians = [hour.median_s or 0.0 for hour in hours]
    known = [hour for hour in hours if hour.slowest_s is not None]
    if known:
        worst = max(known, key=lambda hour: hour.slowest_s or 0.0)
        shortest = min(hour.median_s or 0.0 for hour in known)
        longest = max(medians)
        several = f"{duration(shortest)} to " if duration(shortest) != duration(longest) else ""
        summary = (
            f"Median of an hour {several}{duration(longest)}; slowest "
            f"{duration(worst.slowest_s)}, in the hour from {_clock(worst.begins_at)}."
        )
    else:
        summary = f"No report in {len(hours)} hours."
    return Chart(
        title="From the last image to the report",
        summary=summary,
        svg=_svg(
            f"From the last image to the report: {summary}",
            hours,
            [
                [(item, f"slowest {duration(item)}", "bar pale") for item in slowest],
                [(item, f"median {duration(item)}", "bar") for item in medians],
            ],
            _round_time(max(slowest, default=0.0)),
            duration,
        ),
    )


def _svg(
    label: str,
    hours: Sequence[HourRecord],
    layers: Sequence[Sequence[tuple[float, str, str]]],
    top: float,
    shown: Callable[[float], str],
) -> Markup:
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    step = wide / max(1, len(hours))
    drawn = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            _WIDTH, _HEIGHT, label
        )
    ]
    for share in (0.0, 0.5, 1.0):
        y = _TOP + high * (1 - share)
        drawn.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                _LEFT, _WIDTH - _RIGHT, f"{y:.1f}", f"{y:.1f}"
            )
        )
        if share != 0.5 or top >= 2:
            drawn.append(
                Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
                    _LEFT - 5, f"{y + 4:.1f}", shown(top * share)
                )
            )
    for layer in layers:
        for index, (value, words, look) in enumerate(layer):
            if value > 0:
                length = max(2.0, high * min(1.0, value / top))
                drawn.append(
                    Markup(
                        '<rect class="{}" x="{}" y="{}" width="{}" height="{}">'
                        "<title>{}: {}</title></rect>"
                    ).format(
                        look,
                        f"{_LEFT + index * step + _GAP / 2:.1f}",
                        f"{_TOP + high - length:.1f}",
                        f"{step - _GAP:.1f}",
                        f"{length:.1f}",
                        _clock(hours[index].begins_at),
                        words,
                    )
                )
    for index, hour in enumerate(hours):
        local = hour.begins_at.astimezone()
        if local.hour % _EACH == 0:
            drawn.append(
                Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                    f"{min(_LEFT + (index + 0.5) * step, _WIDTH - _HALF_A_CLOCK):.1f}",
                    _HEIGHT - 6,
                    _clock(local),
                )
            )
    drawn.append(Markup("</svg>"))
    return Markup("").join(drawn)


def _clock(time: datetime) -> str:
    return time.astimezone().strftime("%H:%M")


def _round(most: float) -> float:
    """The next 1, 2 or 5 times a power of ten; an even one has a middle that is a whole number."""
    top = 2.0
    for factor in (2, 2.5, 2) * 12:
        if top >= most:
            break
        top *= factor
    return top


def _round_time(most: float) -> float:
    steps = (10, 60, 120, 240, 600, 1200, 3600, 7200, 4 * 3600, 12 * 3600, 86400)
    return next((float(step) for step in steps if step >= most), _round(most / 86400) * 86400)
