"""Novel labels: what a model learned to spell and the label space does not hold."""

from __future__ import annotations

from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.prediction import open_vocabulary
from xlgen_hf.prediction.open_vocabulary import NearestNames
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.trainer import XLGenTrainer

GONE = {"history", "piano"}


def test_labels_that_left_the_label_space_are_novel(make_model, rows, tmp_path, monkeypatch):
    """A model learns its training rows by heart; two of their labels then leave the label space."""
    counted = []  # the letters of 100,000 names take 15 seconds, which a server cannot spend on each request
    monkeypatch.setattr(open_vocabulary, "NearestNames", lambda known: counted.append(known) or NearestNames(known))
    model, processor = make_model()
    args = XLGenTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, num_train_epochs=200, learning_rate=1e-2,
        fresh_learning_rate=1e-2, lr_scheduler_type="constant", per_device_train_batch_size=8, save_strategy="no",
    )  # fmt: skip
    XLGenTrainer(model, args, processing_class=processor, train_dataset=rows).train()
    model.eval()
    space = processor.label_space
    kept = [i for i, name in enumerate(space.names) if name not in GONE]
    smaller = XLGenProcessor(
        processor.tokenizer, LabelSpace([space.names[i] for i in kept], space.counts[kept]), None, 64, 64
    )
    predictions = model.predict(rows["text"], smaller, open_vocabulary=True, batch_size=2)
    assert model.predict(rows["text"], smaller, open_vocabulary=True)[0].novel_labels == predictions[0].novel_labels
    assert len(counted) == 1
    assert {one.label for prediction in predictions for one in prediction.novel_labels} >= GONE
    for prediction, labels in zip(predictions, rows["labels"], strict=True):
        assert not GONE & set(prediction.labels)
        for one in prediction.novel_labels:
            assert one.label not in smaller.label_space
            assert 0 < one.score <= 1
            assert one.nearest == NearestNames(smaller.label_space.names).of([one.label])[one.label]
        scores = [one.score for one in prediction.novel_labels]
        assert scores == sorted(scores, reverse=True)
        found = {one.label for one in prediction.novel_labels} & set(labels)
        assert found == GONE & set(labels)


def test_the_nearest_name_shares_most_letters():
    known = ["church music", "organ", "music history", "Musik"]
    assert NearestNames(known).of(["organs", "church musics", "MUSIK"]) == {
        "organs": "organ",
        "church musics": "church music",
        "MUSIK": "Musik",
    }
