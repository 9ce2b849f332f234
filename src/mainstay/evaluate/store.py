"""Datasets by digest, runs, and the answers and scores of their cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from mainstay.core.clock import Clock, now_us
from mainstay.core.database import Database, Json, bump_change_counter, metadata
from mainstay.core.errors import NotFound
from mainstay.evaluate.compare import summarise
from mainstay.evaluate.dataset import case_body, case_from_body, dataset_digest
from mainstay.evaluate.types import Answered, Case, DatasetVersion, Mean, Run
from mainstay.govern import append_audit
from mainstay.govern.types import Identity

datasets = sa.Table(
    "eval_datasets",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("cases", Json, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String, nullable=False),
    sa.UniqueConstraint("name", "number"),
)

runs = sa.Table(
    "eval_runs",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("dataset", sa.String, nullable=False),
    sa.Column("dataset_digest", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("metrics", Json, nullable=False),
    sa.Column("means", Json, nullable=True),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("finished_at_us", sa.BigInteger, nullable=True),
    sa.Column("created_by", sa.String, nullable=False),
    sa.ForeignKeyConstraint(["dataset", "dataset_digest"], ["eval_datasets.name", "eval_datasets.digest"]),
    sa.Index(None, "created_at_us", "id"),
)

results = sa.Table(
    "eval_results",
    metadata,
    sa.Column("run_id", sa.String, sa.ForeignKey("eval_runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("case_id", sa.String, primary_key=True),
    sa.Column("answered", Json, nullable=False),
    sa.Column("scores", Json, nullable=False),
    sa.Column("at_us", sa.BigInteger, nullable=False),
)

_Row = sa.RowMapping


class EvalStore:
    """Evaluations in the control database. Starting and finishing are audited; single answers are not."""

    def __init__(self, database: Database, clock: Clock = now_us) -> None:
        self._database = database
        self._clock = clock

    def save_dataset(self, actor: Identity, name: str, cases: Sequence[Case]) -> DatasetVersion:
        """Store the version unless it is there. `number` counts the versions of the name from 1."""
        with self._database.begin() as connection:
            return self._save_dataset(connection, actor, name, cases)

    def _save_dataset(
        self, connection: sa.Connection, actor: Identity, name: str, cases: Sequence[Case]
    ) -> DatasetVersion:
        digest, at_us = dataset_digest(cases), self._clock()
        of_name = datasets.c.name == name
        number = connection.scalar(sa.select(datasets.c.number).where(of_name, datasets.c.digest == digest))
        if number is not None:
            return DatasetVersion(name, int(number), digest, tuple(cases))
        last = connection.scalar(sa.select(sa.func.max(datasets.c.number)).where(of_name))
        number = int(last or 0) + 1
        connection.execute(
            datasets.insert().values(
                name=name,
                digest=digest,
                number=number,
                cases=[case_body(case) for case in cases],
                created_at_us=at_us,
                created_by=actor.id,
            )
        )
        self._audit(
            connection, actor, "dataset.save", f"dataset/{name}", {"number": number, "digest": digest}
        )
        return DatasetVersion(name, number, digest, tuple(cases))

    def dataset(self, name: str, digest: str | None = None) -> DatasetVersion:
        """The version with this digest, or the newest. Raises NotFound."""
        query = sa.select(datasets).where(datasets.c.name == name).order_by(datasets.c.number.desc()).limit(1)
        if digest is not None:
            query = query.where(datasets.c.digest == digest)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(
                f"There is no dataset {name!r}.", fix="`mainstay eval run` stores what it runs on."
            )
        cases = tuple(case_from_body(body) for body in row["cases"])
        return DatasetVersion(row["name"], row["number"], row["digest"], cases)

    def start_run(
        self,
        actor: Identity,
        run_id: str,
        dataset: str,
        cases: Sequence[Case],
        target: str,
        metrics: Sequence[str],
    ) -> None:
        """Store the run and its dataset, unless this run was started before."""
        with self._database.begin() as connection:
            if connection.scalar(sa.select(runs.c.id).where(runs.c.id == run_id)) is not None:
                return
            version = self._save_dataset(connection, actor, dataset, cases)
            connection.execute(
                runs.insert().values(
                    id=run_id,
                    dataset=dataset,
                    dataset_digest=version.digest,
                    target=target,
                    metrics=list(metrics),
                    created_at_us=self._clock(),
                    created_by=actor.id,
                )
            )
            detail = {"target": target, "dataset": dataset, "dataset_digest": version.digest}
            self._audit(connection, actor, "evaluation.start", f"run/{run_id}", detail)

    def save_case(
        self, run_id: str, case_id: str, answered: Answered, scores: Mapping[str, float | None]
    ) -> None:
        """Keep one answer; a later one of the same case replaces it. Raises NotFound when there is no such run."""
        values = {"answered": asdict(answered), "scores": dict(scores), "at_us": self._clock()}
        insert = self._database.upsert(results).values(run_id=run_id, case_id=case_id, **values)
        with self._database.begin() as connection:
            self._row(connection, run_id)
            connection.execute(
                insert.on_conflict_do_update(index_elements=["run_id", "case_id"], set_=values)
            )

    def finish(self, actor: Identity, run_id: str) -> None:
        """Store the means; the run is then complete and not continued any more."""
        with self._database.begin() as connection:
            run = self._whole(connection, self._row(connection, run_id))
            means = {metric: asdict(mean) for metric, mean in run.means.items()}
            connection.execute(
                runs.update().where(runs.c.id == run_id).values(means=means, finished_at_us=self._clock())
            )
            failed = sum(answered.error is not None for answered in run.answers.values())
            detail = {"target": run.target, "cases": len(run.answers), "failed": failed}
            self._audit(connection, actor, "evaluation.finish", f"run/{run_id}", detail)

    def finished(self, run_id: str) -> bool:
        with self._database.read() as connection:
            return self._row(connection, run_id)["finished_at_us"] is not None

    def answers(self, run_id: str) -> dict[str, Answered]:
        """What is stored of a run so far, by case id."""
        with self._database.read() as connection:
            return {row["case_id"]: _answered(row["answered"]) for row in _results(connection, run_id)}

    def run(self, run_id: str) -> Run:
        """A run with every case; the means of an unfinished one are of what is stored. Raises NotFound."""
        with self._database.read() as connection:
            return self._whole(connection, self._row(connection, run_id))

    def runs(self, target: str | None = None, limit: int = 100, before: str | None = None) -> tuple[Run, ...]:
        """Runs, newest first, without their cases (`scores` and `answers` are empty); `before` is a run's id."""
        query = sa.select(runs).order_by(runs.c.created_at_us.desc(), runs.c.id.desc()).limit(limit)
        if target is not None:
            query = query.where(runs.c.target == target)
        with self._database.read() as connection:
            if before is not None:
                row = self._row(connection, before)
                place = sa.tuple_(runs.c.created_at_us, runs.c.id)
                query = query.where(place < sa.tuple_(row["created_at_us"], row["id"]))
            rows = connection.execute(query).mappings().all()
            return tuple(_run(row, {}, {}, _means(row)) for row in rows)

    def _row(self, connection: sa.Connection, run_id: str) -> _Row:
        row = connection.execute(sa.select(runs).where(runs.c.id == run_id)).mappings().first()
        if row is None:
            raise NotFound(f"There is no evaluation run {run_id!r}.", fix="`mainstay eval list` shows them.")
        return row

    def _whole(self, connection: sa.Connection, row: _Row) -> Run:
        stored = _results(connection, row["id"])
        answers = {r["case_id"]: _answered(r["answered"]) for r in stored}
        scores = {r["case_id"]: dict(r["scores"]) for r in stored}
        if row["means"] is not None:
            return _run(row, scores, answers, _means(row))
        cases = connection.scalar(
            sa.select(datasets.c.cases).where(
                datasets.c.name == row["dataset"], datasets.c.digest == row["dataset_digest"]
            )
        )
        parsed = [case_from_body(body) for body in cases or ()]
        return _run(row, scores, answers, summarise(parsed, scores, answers, row["metrics"]))

    def _audit(
        self, connection: sa.Connection, actor: Identity, action: str, target: str, detail: dict[str, Any]
    ) -> None:
        append_audit(connection, actor, action, target, detail)
        bump_change_counter(connection)


def _results(connection: sa.Connection, run_id: str) -> Sequence[_Row]:
    query = sa.select(results).where(results.c.run_id == run_id).order_by(results.c.case_id)
    return connection.execute(query).mappings().all()


def _answered(body: Mapping[str, Any]) -> Answered:
    fields = dict(body)
    return Answered(
        **fields | {"citations": tuple(fields["citations"]), "passages": tuple(fields["passages"])}
    )


def _means(row: _Row) -> dict[str, Mean]:
    """In the order in which the run names its metrics; empty before it is finished."""
    body: Mapping[str, Any] = row["means"] or {}
    return {metric: _mean(body[metric]) for metric in row["metrics"] if metric in body}


def _mean(body: Mapping[str, Any]) -> Mean:
    ci95 = body["ci95"]
    return Mean(body["value"], body["scored"], body["missing"], None if ci95 is None else (ci95[0], ci95[1]))


def _run(
    row: _Row,
    scores: Mapping[str, Mapping[str, float | None]],
    answers: Mapping[str, Answered],
    means: Mapping[str, Mean],
) -> Run:
    return Run(
        id=row["id"],
        dataset=row["dataset"],
        dataset_digest=row["dataset_digest"],
        target=row["target"],
        created_at_us=row["created_at_us"],
        scores=scores,
        answers=answers,
        means=means,
    )
