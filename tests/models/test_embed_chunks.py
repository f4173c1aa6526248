"""Chunks that cores share come out as those of one thread, in order, and leave the process as it was."""

import numpy as np
import pytest
import torch
from published_folders import write_published

from largede.models.embed_chunks import embed_chunks
from largede.models.text_encoder import FolderEncoder, load_text_encoder

TEXTS = [f"engine {'harbour ' * (7 * i % 23)}" for i in range(60)]


@pytest.fixture(scope="module", params=["bert", "t5"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FolderEncoder:
    folder = write_published(tmp_path_factory.mktemp("model") / "model", request.param, [])
    return load_text_encoder(folder, device="cpu")


@pytest.fixture(autouse=True)
def threads_stay() -> None:
    before = torch.get_num_threads()
    yield  # type: ignore[misc]
    torch.set_num_threads(before)


def test_any_number_of_threads_gives_the_vectors_of_one(encoder: FolderEncoder) -> None:
    encoder.chunk_tokens = 48
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        counts: list[int] = []
        rows = encoder.prepare(TEXTS, "passage", 32)
        found.append(encoder.embed_rows(rows, "passage", counts.append))
        assert sum(counts) == len(TEXTS) and len(counts) > 3
        assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(found[1], found[2])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_chunks_come_in_order_and_without_gradients(encoder: FolderEncoder) -> None:
    encoder.chunk_tokens = 48
    torch.set_num_threads(2)
    chunks = encoder._chunks(encoder.prepare(TEXTS, "passage", 32), "passage")
    embedded = list(embed_chunks(encoder.towers["passage"], chunks, torch.device("cpu")))
    assert [id(chunk) for chunk, _ in embedded] == [id(chunk) for chunk in chunks]
    assert not any(vector_BD.requires_grad for _, vector_BD in embedded)


def test_an_error_in_a_core_is_raised_and_the_threads_are_given_back(encoder: FolderEncoder) -> None:
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError):
        list(embed_chunks(lambda *inputs: 1 / 0, encoder._chunks(encoder.prepare(TEXTS, "passage", 32), "passage"),  # type: ignore[arg-type, return-value]
                          torch.device("cpu")))  # fmt: skip
    assert torch.get_num_threads() == 2
