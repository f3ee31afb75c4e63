import numpy as np
import pytest
import torch

from analysis.maths.svd import right_singular_vectors, svd_delta_w


@pytest.mark.parametrize(("d", "k", "r"), [(20, 12, 3), (12, 20, 3), (6, 9, 1), (5, 7, 5), (4, 9, 6)])
def test_delta_w_is_rebuilt_and_singular_values_are_the_dense_ones(d: int, k: int, r: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((r, k)), rng.standard_normal((d, r))
    result = svd_delta_w(a, b, scaling=2.5)
    dense = 2.5 * b @ a
    m = min(d, k, r)
    assert (result.U.shape, result.S.shape, result.Vh.shape) == ((d, m), (m,), (m, k))
    np.testing.assert_allclose(result.U * result.S @ result.Vh, dense, atol=1e-12)
    np.testing.assert_allclose(result.S, np.linalg.svd(dense, compute_uv=False)[:m], atol=1e-12)
    np.testing.assert_allclose(result.U.T @ result.U, np.eye(m), atol=1e-12)
    np.testing.assert_allclose(result.Vh @ result.Vh.T, np.eye(m), atol=1e-12)


def test_singular_vectors_equal_the_dense_ones_up_to_sign() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((4, 15)), rng.standard_normal((11, 4))
    u, _, vh = np.linalg.svd(b @ a, full_matrices=False)
    result = svd_delta_w(a, b)
    np.testing.assert_allclose(np.abs(np.sum(result.U * u[:, :4], axis=0)), 1, atol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(result.Vh * vh[:4], axis=1)), 1, atol=1e-10)


def test_torch_fp32_in_float64_out() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 10, generator=generator), torch.randn(8, 3, generator=generator)
    assert {part.dtype for part in svd_delta_w(a, b)} == {np.dtype(np.float64)}
    assert right_singular_vectors(a).dtype == np.float64


def test_untrained_b_has_zero_singular_values() -> None:
    result = svd_delta_w(np.ones((2, 5)), np.zeros((4, 2)))
    assert (result.S == 0).all()
    np.testing.assert_allclose(result.U.T @ result.U, np.eye(2), atol=1e-12)


def test_right_singular_vectors_span_the_rows_of_a_largest_first() -> None:
    a = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 5.0]])
    np.testing.assert_allclose(np.abs(right_singular_vectors(a)), [[0, 0], [0, 1], [0, 0], [1, 0]], atol=1e-12)
