"""`make demo` installs Flotilla on a local cluster, indexes documents, and asks a fleet questions about them.

Each step prints what it does and how many seconds it took. Where an object does not become ready in time, the
demo prints the condition that says why. You can run it again at any time, on the same documents or on others.
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
To look around
  export KUBECONFIG={kubeconfig}
  {kubectl} --namespace {namespace} get flotilla
  {kubectl} --namespace {namespace} describe agentfleet assistant
  make demo DOCS=folder QUESTION="…"      asks your question about your documents

To remove it
  make demo-down         removes the demo's namespace and the chart
  make cluster-down      removes the whole local cluster
"""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument(
        "--documents",
        type=Path,
        help="a folder of HTML, Markdown, text or PDF files to index in place of the demo's",
    )
    parser.add_argument(
        "--question",
        action="append",
        help="a question to ask in place of the demo's; repeat the option to ask several",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        default=environment.EXAMPLE,
        help="the YAML file with the model replica sets, the index and the fleet to create "
        "(default: examples/agentfleet.yaml)",
    )
    parser.add_argument(
        "--down", action="store_true", help="remove the demo's namespace and the chart, and end"
    )
    return parser.parse_args()


def show(question: Question, answer: Answer) -> None:
    """Print one answer with its sources, and mark a source that is a right page."""
    print(f"\nQ  {question.text}\nA  {answer.text.strip()}")
    for source in answer.sources:
        mark = "  (the right page)" if Path(source.document).name in question.right_pages else ""
        print(f"   source: {source}{mark}")
    print(f"   {answer.seconds:.1f} s")


def run(options: argparse.Namespace, timeline: Timeline) -> Environment:
    """All steps of the demo, in order."""
    files = environment.documents(options.documents)
    with timeline.step("cluster: start the local Kubernetes cluster, or find it running"):
        demo = environment.up()
    with timeline.step("images: build those of operator, runtime, router, stores and engine"):
        references = demo.build_images()
    with timeline.step("chart: install the custom resource definitions and the operator"):
        demo.install_chart(references)
    with timeline.step(f"volumes: copy two models and {len(files.names)} documents from {files.title}"):
        demo.fill_claims(files, references["runtime"])
    with timeline.step(f"objects: apply {options.manifest.name} and wait until all are ready"):
        demo.apply(options.manifest, files.digest)
        demo.wait_until_ready()
    print(demo.kubectl.run("get", "flotilla"))
    questions = tuple(Question(text=text) for text in options.question or ()) or QUESTIONS
    with timeline.step(f"tasks: ask {len(questions)} question{'s' if len(questions) > 1 else ''}"):
        answers = [(question, answer) for question, answer in demo.ask(questions)]
    for question, answer in answers:
        show(question, answer)
    return demo


def main() -> int:
    """Run or remove the demo; 1 when a step fails, after its error message is printed."""
    options = arguments()
    timeline = Timeline()
    try:
        if options.down:
            environment.existing().remove()
            return 0
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
