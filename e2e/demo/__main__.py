"""`make demo`: see Flotilla do its job.

Every step says what it does and how long it took; a wait that fails prints the conditions that explain it.
It can be run again at any time, on the same or on other documents.
"""

import argparse
import sys
from pathlib import Path

from demo import environment
from demo.environment import Environment
from demo.kubectl import KubectlError
from demo.questions import QUESTIONS, Question
from demo.timeline import Timeline
from flotilla_cli.tasks import Answer, TaskFailedError

GOODBYE = """
Look further
  export KUBECONFIG={kubeconfig}
  {kubectl} --namespace {namespace} get flotilla
  {kubectl} --namespace {namespace} describe agentfleet assistant
  make demo DOCS=folder QUESTION="…"      your own documents

Take it down
  make demo-down         the demo and the chart
  make cluster-down      the whole cluster
"""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument(
        "--documents", type=Path, help="a folder of HTML, Markdown, text or PDF files of your own"
    )
    parser.add_argument(
        "--question", action="append", help="a question of your own; may be given several times"
    )
    parser.add_argument(
        "--manifest", type=Path, default=environment.EXAMPLE, help="the file with the three kinds"
    )
    parser.add_argument("--down", action="store_true", help="remove the demo and the chart instead")
    return parser.parse_args()


def show(question: Question, answer: Answer) -> None:
    """Print one answer with the pages it rests on."""
    print(f"\nQ  {question.text}\nA  {answer.text.strip()}")
    for source in answer.sources:
        mark = "  (the right page)" if Path(source.document).name in question.right_pages else ""
        print(f"   source: {source}{mark}")
    print(f"   {answer.seconds:.1f} s")


def run(options: argparse.Namespace, timeline: Timeline) -> Environment:
    """The whole story, top to bottom."""
    files = environment.documents(options.documents)
    with timeline.step("cluster: a Kubernetes to work on"):
        demo = environment.up()
    with timeline.step("images: operator, runtime, router, stores, engine"):
        references = demo.build_images()
    with timeline.step("chart: custom resource definitions and the operator"):
        demo.install_chart(references)
    with timeline.step(f"claims: two models and {len(files.names)} documents from {files.title}"):
        demo.fill_claims(files, references["runtime"])
    with timeline.step(f"apply {options.manifest.name} and wait for all three kinds"):
        demo.apply(options.manifest, files.digest)
        demo.wait_until_ready()
    print(demo.kubectl.run("get", "flotilla"))
    questions = tuple(Question(text=text) for text in options.question or ()) or QUESTIONS
    with timeline.step(f"ask {len(questions)} question{'s' if len(questions) > 1 else ''}"):
        answers = [(question, answer) for question, answer in demo.ask(questions)]
    for question, answer in answers:
        show(question, answer)
    return demo


def main() -> int:
    """Run the demo; 1 when a step fails, with what explains it."""
    options = arguments()
    timeline = Timeline()
    if options.down:
        environment.existing().remove()
        return 0
    try:
        demo = run(options, timeline)
    except (environment.DemoError, KubectlError, TaskFailedError) as problem:
        print(f"\nThe demo stopped: {problem}", file=sys.stderr)
        return 1
    print(f"\nWhere the time went\n{timeline.table()}")
    print(
        GOODBYE.format(
            kubeconfig=demo.kubectl.kubeconfig, kubectl=demo.kubectl.binary, namespace=demo.kubectl.namespace
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
