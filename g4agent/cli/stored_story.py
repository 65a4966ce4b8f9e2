"""A session's story, told from the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from g4agent.cli.console import counted, one_line
from g4agent.cli.render import PLACES, Story
from g4agent.cli.sessions import size
from g4agent.context.ladder import RUNGS
from g4agent.events import Usage
from g4agent.gemma4.sections import KINDS, SectionReader, has_system_turn
from g4agent.image import Prompt, shown
from g4agent.messages import ToolCall
from g4agent.store import Store
from g4agent.store.records import UNFINISHED, Question, StoredCall, StoredSession, StoredStep, put_together


def tell(story: Story, store: Store, session: StoredSession, *, verbose: bool) -> None:
    """Prints turns, thoughts, calls, questions and results, then what all of it took; with `verbose`, of each step."""
    began = f"{session.created:%Y-%m-%d %H:%M} UTC"
    options = "".join(f" · --{name.replace('_', '-')} {value}" for name, value in session.model_options.items())
    story.line(f"session {session.id} · {session.agent} · {session.model} · {began}{options}", "dim")
    calls, questions = store.calls(session.id), {q.call_id: q for q in store.questions.of(session.id)}
    images = store.images(session.id)
    length = 0
    for step in store.steps(session.id):
        before, length = length, store.delta(session.id, step.index).end
        if step.kind in RUNGS:
            trimmed = step.text.split() if step.kind == "trim_results" else ()
            summary = step.text if step.kind == "summarise" else ""
            story.reduced(step.kind, trimmed, summary, f"{before:,} → {length:,} tokens")
            continue
        made = [call for call in calls if call.step == step.index]
        _tell_step(story, step, put_together(step.text, images.get(step.index, ())), made, questions)
        if verbose:
            story.line(f"step {step.index} · {_spent(step.usage)}", "dim")
    _tell_calls(story, [call for call in calls if call.step >= session.steps], questions)
    for question in questions.values():
        story.call(ToolCall(question.call_id, question.name, question.arguments))
        _tell_question(story, question)
    _tell_end(story, session, store.transcript(session.id))


def _tell_step(
    story: Story, step: StoredStep, said: Prompt, calls: Sequence[StoredCall], questions: dict[str, Question]
) -> None:
    if step.kind == "user":
        story.line(f"> {shown(said)}", "bold")
        return
    if thoughts := step.thoughts.strip():
        story.line(f"thought: {thoughts}", "dim italic")
    if text := step.text.strip():
        story.line(text)
    _tell_calls(story, calls, questions)


def _tell_calls(story: Story, calls: Iterable[StoredCall], questions: dict[str, Question]) -> None:
    """Each call with its result. Takes the questions that were about them out of `questions`."""
    for call in calls:
        story.call(ToolCall(call.call_id, call.name, call.arguments))
        if call.repairs:
            story.line(f"  mended: {', '.join(call.repairs)}", "yellow")
        if question := questions.pop(call.call_id, None):
            _tell_question(story, question)
        if call.result is None:
            story.line(f"✗ {call.name}: begun, and its outcome is unknown", "red")
            continue
        if call.started is not None:
            place = PLACES[call.where or "sandbox"]
            story.line(f"  ran {place} · {call.seconds:.1f} s", "dim")
        story.result(call.result, call.output)


def _tell_question(story: Story, question: Question) -> None:
    story.line(f"  ? {one_line(question.reason)}", "yellow")
    if question.approved is None:
        story.line(f"  answer with: g4agent approve {question.id} [--deny]", "dim")
        return
    answer = "approved" if question.approved else "denied"
    said = f": {one_line(question.comment)}" if question.comment else ""
    story.line(f"  {answer} at {question.answered:%Y-%m-%d %H:%M} UTC{said}", "yellow")


def _tell_end(story: Story, session: StoredSession, tokens: Sequence[int]) -> None:
    verdict = session.verdict
    status = UNFINISHED if verdict is None else f"{verdict.outcome}{f' ({verdict.reason})' if verdict.reason else ''}"
    story.line(
        f"{status} · {counted(session.steps, 'step')} · {_spent(session.usage)}",
        "green" if verdict is not None and verdict.ok else "bold red",
    )
    use = session.memory
    cache = "" if use is None else f" · {size(use.bytes)} of keys and values ({size(use.plain_bytes)} uncompressed)"
    counts = SectionReader(has_system_turn(tokens, session.system))
    counts.read(tokens)
    parts = [f"{kind} {counts.counts[kind]:,}" for kind in KINDS if counts.counts[kind]]
    story.line(f"  context: {session.tokens:,} tokens{cache}", "dim")
    if parts:
        story.line(f"    {' · '.join(parts)}", "dim")
    if session.interrupted:
        story.line(f"  go on with: g4agent sessions resume {session.id}", "dim")


def _spent(usage: Usage) -> str:
    thoughts = f" ({usage.thought_tokens:,} of them thoughts)" if usage.thought_tokens else ""
    return f"{usage.prompt_tokens:,} + {usage.generated_tokens:,} tokens{thoughts} · {usage.seconds:.1f} s"
