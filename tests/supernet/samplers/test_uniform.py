from __future__ import annotations

from supernet.samplers import Role, UniformSampler


def test_every_choice_is_as_likely_in_every_config(space):
    sampler = UniformSampler(space, 4, seed=0)
    draws = [draw for step in range(600) for draw in sampler.sample(step)]
    assert {draw.role for draw in draws} == {Role.RANDOM}
    assert len(sampler.sample(0)) == 4
    for name in ("resolution", "width", "block0.conv.w_bits", "weight.symmetry"):
        choices = space.dimensions[space.position(name)].choices
        shares = [sum(d.config[name] == c for d in draws) / len(draws) for c in choices]
        assert all(abs(share - 1 / len(choices)) < 0.06 for share in shares)
