"""What somebody may bring who means no good, for the tests of the page."""

from __future__ import annotations

HOSTILE = (
    "<img src=x onerror=alert(1)> ${alert(2)} {{constructor}} `x` \"quoted\" 'too' </script><script>alert(3)</script>"
)
"""A text, or the name of a label, that would run where somebody forgot that it is text."""
