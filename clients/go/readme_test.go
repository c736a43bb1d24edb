package minikafka_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minikafka/minikafka/clients/go/internal/brokertest"
	"github.com/minikafka/minikafka/clients/go/internal/vectors"
)

// The example of the repository's README is run as it stands there, in a function of a program.
func TestTheExampleOfTheReadmeRuns(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(vectors.Root(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```go\n")
	example, _, found := strings.Cut(rest, "```\n")
	if !found || strings.Count(example, "\n") >= 10 {
		t.Fatalf("not an example of less than ten lines:\n%s", example)
	}
	broker := brokertest.Start(t)
	program := "package main\n\nimport (\n\t\"context\"\n\t\"fmt\"\n\n\tminikafka \"github.com/minikafka/minikafka/clients/go\"\n)\n\n" +
		"func main() {\n\tif err := run(context.Background()); err != nil {\n\t\tpanic(err)\n\t}\n}\n\n" +
		"func run(ctx context.Context) error {\n" + strings.ReplaceAll(example, "localhost:9000", broker.Gateway) + "return err\n}\n"
	path := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(path, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command("go", "run", path).CombinedOutput()
	if err != nil || string(output) != "0 user-7 hello <nil>\n" {
		t.Errorf("%v\n%s", err, output)
	}
}
