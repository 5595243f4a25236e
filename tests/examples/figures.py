"""Reading /metrics as a scraper does."""

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def scrape(client: httpx2.Client) -> list[Sample]:
    response = client.get("/metrics")
    assert response.status_code == 200, response.text
    return [
        sample
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    ]


def value_of(client: httpx2.Client, name: str, /, **labels: str) -> float:
    """The value of one sample now; 0 where there is none yet."""
    found = [
        sample.value for sample in scrape(client) if sample.name == name and sample.labels == labels
    ]
    assert len(found) <= 1, found
    return found[0] if found else 0.0
