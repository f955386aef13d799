from biqa.data.distortions import DISTORTIONS
from biqa.data.kadid_opinions import opinion, opinions


def test_every_type_and_level_has_an_opinion():
    assert list(opinions()) == [(kind, level) for kind in DISTORTIONS for level in range(1, 6)]
    assert all(1 <= mean <= 5 and 0 < std < 1 for mean, std in opinions().values())


def test_values_of_the_source():
    assert opinion("gaussian_blur", 1) == (4.6122, 0.1304)
    assert opinion("jpeg", 4) == (1.9454, 0.3245)
    assert opinion("contrast_change", 5) == (3.3238, 0.3761)
