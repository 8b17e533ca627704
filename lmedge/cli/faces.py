"""Commands that run a bundle on pictures: predict and evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lmedge.cli.console import note, number, percent, print_json, print_table, progress_bar, say
from lmedge.cli.options import (
    BOXES,
    SPLITS,
    BackendOption,
    DetectorOption,
    DeviceOption,
    DialectOption,
    JsonOption,
    PrecisionOption,
    SchemaOption,
    ThreadsOption,
    one_of,
)
from lmedge.default_bundle import DEFAULT
from lmedge.errors import BundleError, InputError

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder.")]
_SHEET_FACES = 40


def register(app: typer.Typer) -> None:
    app.command(
        epilog="Examples:  lmedge predict driver.jpg --box 210,120,180,200 --draw out   |   "
        "lmedge predict runs/faces/bundle driver.jpg"
    )(predict)
    app.command(epilog="Example:  lmedge evaluate runs/faces/bundle --data 300w:faces/300w --show out")(evaluate)


def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="[BUNDLE] IMAGE", help=f"A bundle folder or zoo:NAME, then pictures; {DEFAULT} if left out."),
    ],
    box: Annotated[
        list[str] | None, typer.Option("--box", metavar="X,Y,W,H", help="A face box in pixels, kind reference. Repeatable.")
    ] = None,
    box_kind: Annotated[str, typer.Option("--box-kind", help="Who drew the box: reference, yunet, wflw, ...")] = "reference",
    detector: DetectorOption = None,
    backend: BackendOption = "onnxruntime",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    dialect: DialectOption = None,
    draw: Annotated[Path | None, typer.Option("--draw", metavar="DIR", help="Write pictures with the points here.")] = None,
    names: Annotated[
        bool, typer.Option("--names", help="Number the drawn points, and list their names beside the picture.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find the landmarks of the faces in pictures."""
    from lmedge.data.pictures import draw_faces, save_picture
    from lmedge.data.samples import read_image
    from lmedge.landmarks import FaceBox
    from lmedge.runtimes.detector import YUNET, yunet_detector
    from lmedge.runtimes.landmarker import FaceLandmarker

    bundle, images = _bundle_and_images(paths)
    if box and detector:
        raise typer.BadParameter("give --box or --detector, not both.")
    if names and draw is None:
        raise typer.BadParameter("--names goes with --draw DIR.")
    drawn = _drawn_files(images, draw) if draw else {}
    given = [parse_box(text, box_kind) for text in box or ()]
    detect = yunet_detector(detector) if detector else None
    documents: list[dict[str, Any]] = []
    opened = FaceLandmarker.open(bundle, backend=backend, precision=precision, device=device, threads=threads, dialect=dialect)
    with opened as landmarker:
        print_terms(landmarker.bundle)
        for path in images:
            image = read_image(path)
            boxes = given
            if detect is not None:
                boxes = [FaceBox.from_xyxy(row[:4], score=row[4], kind=YUNET) for row in detect(image).tolist()]
            elif not given:
                height, width = image.shape[:2]
                boxes = [FaceBox(0, 0, width - 1, height - 1)]
                note(f"{path}: no --box or --detector given, so the whole picture is taken as one face.")
            faces = landmarker.predict(image, boxes)
            documents.append({"image": str(path), "faces": [face.to_json() for face in faces]})
            if drawn:
                picture = save_picture(drawn[path], draw_faces(image, faces, names=names))
                note(f"{path}: {len(faces)} {'face' if len(faces) == 1 else 'faces'}, drawn in {picture}")
    if as_json:
        print_json(documents)
        return
    for document in documents:
        for number_, face in enumerate(document["faces"]):
            confidence = face["confidence"] or ()
            rows = [
                [name, number(x, 1), number(y, 1), *([number(confidence[index])] if confidence else [])]
                for index, (name, (x, y)) in enumerate(zip(opened.schema.point_names, face["points_px"], strict=True))
            ]
            columns = ["point", "x px", "y px", *(["confidence"] if confidence else [])]
            print_table(f"{document['image']}, face {number_ + 1}", columns, rows)
        if not document["faces"]:
            say(f"{document['image']}: no face found")


def evaluate(
    bundle: BundleArgument,
    data: Annotated[list[str], typer.Option("--data", metavar="KIND:PATH", help="Labelled faces. Repeatable.")],
    schema: SchemaOption = "",
    split: Annotated[str, typer.Option("--split", callback=one_of(SPLITS), help="validation, train or all.")] = "validation",
    backend: BackendOption = "onnxruntime",
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    threads: ThreadsOption = None,
    dialect: DialectOption = None,
    boxes: Annotated[
        str | None,
        typer.Option(
            "--boxes",
            callback=one_of(BOXES),
            help="annotated (the labels' extent where there are none), landmarks or detector.",
        ),
    ] = None,
    detector: DetectorOption = None,
    show: Annotated[
        Path | None, typer.Option("--show", metavar="DIR", help="Write sheets: labels red, predictions green.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the error of a bundle on labelled faces."""
    from lmedge.data.duplicates import share_keys_of_duplicates
    from lmedge.data.sources import parse_source, read_sources
    from lmedge.runtimes.detector import yunet_detector
    from lmedge.runtimes.evaluate import evaluate as run_evaluate
    from lmedge.runtimes.landmarker import FaceLandmarker
    from lmedge.schemas import get_schema

    chosen = boxes or ("detector" if detector else "annotated")
    if (chosen == "detector") != (detector is not None):
        raise typer.BadParameter("--boxes detector and --detector MODEL.onnx go together.")
    chosen_schema = get_schema(schema) if schema else None
    sources = [parse_source(text, chosen_schema) for text in data]
    detect = yunet_detector(detector) if detector else None
    opened = FaceLandmarker.open(bundle, backend=backend, precision=precision, device=device, threads=threads, dialect=dialect)
    with opened as landmarker, progress_bar() as progress:
        print_terms(landmarker.bundle)
        samples = share_keys_of_duplicates(read_sources(sources))
        report, results = run_evaluate(
            landmarker,
            samples,
            boxes=chosen,
            detector=detect,
            split=split,
            trained_keys=_trained_keys(landmarker.bundle, samples),
            progress=lambda done, total: progress(done, total, "evaluating"),
        )
    if report.trained_on:
        note(f"Warning: the bundle was trained on the photos of {report.trained_on} of these {report.count} faces: no test.")
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report, ", ".join(data))
    if show is not None:
        for path in _write_sheets(show, results):
            note(f"wrote {path}")


def _bundle_and_images(paths: list[Path]) -> tuple[Path, list[Path]]:
    from lmedge.bundle.zoo import resolve_bundle

    first, rest = resolve_bundle(paths[0]), paths[1:]
    if not (first / "manifest.json").is_file():
        if not first.is_dir():
            note(f"No bundle is named; taking {DEFAULT}.")
            return resolve_bundle(DEFAULT), paths
        raise BundleError(f"{first} is no bundle (no manifest.json). Give a bundle first, then pictures.{bundle_within(first)}")
    if not rest:
        raise typer.BadParameter(f"give at least one picture: lmedge predict {first} photo.jpg")
    return first, rest


def bundle_within(folder: Path) -> str:
    """What to say where a run folder is given instead of the bundle in it; nothing for any other folder."""
    return f" Did you mean {folder / 'bundle'}?" if (folder / "bundle" / "manifest.json").is_file() else ""


def _drawn_files(images: list[Path], folder: Path) -> dict[Path, Path]:
    """Where each picture is drawn: its own name, numbered where that is taken by another one or is one of the pictures."""
    taken = {image.resolve() for image in images}
    files: dict[Path, Path] = {}
    for image in dict.fromkeys(images):
        names = (
            folder / f"{image.stem}{number_}.png" for number_ in ("", *(f"-{count}" for count in range(2, len(images) + 3)))
        )
        files[image] = next(name for name in names if name.resolve() not in taken)
        taken.add(files[image].resolve())
    return files


def parse_box(text: str, kind: str) -> Any:
    from lmedge.landmarks import FaceBox

    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"expected x,y,width,height in pixels, e.g. --box 210,120,180,200; got {text!r}.", param_hint="'--box'"
        ) from error
    try:
        return FaceBox(x, y, x + width, y + height, kind=kind)
    except InputError as error:
        raise InputError(f"--box {text} is x,y,width,height, and both sizes must be above 0. {error}") from error


def print_terms(bundle: Any) -> None:
    for source in bundle.manifest.provenance.get("sources", ()):
        if "research" in source.get("terms", ""):
            note(f"This bundle was trained on data with terms of use. {source['terms']}")


def _trained_keys(bundle: Any, samples: list[Any]) -> frozenset[str]:
    from lmedge.export.pack import photo_digest

    trained = set(bundle.manifest.provenance.get("trained_photos", ()))
    return frozenset(sample.photo_key for sample in samples if photo_digest(sample.photo_key) in trained)


def _print_report(report: Any, title: str) -> None:
    low, high = report.nme_interval
    rows = [
        ["NME", f"{percent(report.nme)}  (95 %: {percent(low)} to {percent(high)})"],
        ["AUC at 0.10 / 0.08", f"{report.auc10:.3f} / {report.auc08:.3f}"],
        ["failures above 0.10 / 0.08", f"{percent(report.fr10)} / {percent(report.fr08)}"],
        ["faces", f"{report.count} ({report.missed} missed, {report.excluded} without normaliser)"],
        *[[f"NME of {name}", percent(value)] for name, value in report.groups.items()],
        *[
            [f"NME on {tag}", f"{percent(entry.get('nme'))} ({entry.get('count', 0):.0f} faces)"]
            for tag, entry in report.subsets.items()
        ],
        ["normaliser", report.normalizer],
        ["boxes", report.boxes],
        ["split", report.split],
        ["engine", f"{report.backend} {report.precision}"],
        *([["schema mapping", report.mapping]] if report.mapping else []),
    ]
    print_table(title, ["what", "value"], rows)


def _write_sheets(folder: Path, results: list[Any]) -> list[Path]:
    """The worst faces, and a spread over all of them from best to worst."""
    import numpy as np

    from lmedge.data.pictures import contact_sheet, save_picture

    order = sorted(results, key=lambda result: -result.nme if result.nme == result.nme else 0)
    spread = [order[index] for index in np.linspace(0, len(order) - 1, min(_SHEET_FACES, len(order))).astype(int)]
    return [
        save_picture(
            folder / f"{name}.png",
            contact_sheet([r.sample for r in chosen], predictions=[r.points_px for r in chosen]),
        )
        for name, chosen in (("worst", order[:_SHEET_FACES]), ("spread", spread))
    ]
