package errorcode

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/minikafka/minikafka/clients/go/internal/vectors"
)

// The tables of the documents are the contract: this one is held against them, in both directions.
func TestTheTableIsTheOneOfTheDocuments(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| (\\d+) \\| `([a-z_]+)` \\| (yes|no) \\| (.+) \\|$")
	documented := map[Code]bool{}
	for _, document := range []string{"PROTOCOL.md", "GROUPS.md"} {
		text, err := os.ReadFile(filepath.Join(vectors.Root(t), "docs", document))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range row.FindAllStringSubmatch(string(text), -1) {
			number, err := strconv.Atoi(match[1])
			if err != nil {
				t.Fatal(err)
			}
			code := Code(number)
			documented[code] = true
			if code.Name() != match[2] || code.Retriable() != (match[3] == "yes") {
				t.Errorf("%d is %s (retriable: %v), documented as %s (%s)", number, code.Name(), code.Retriable(), match[2], match[3])
			}
			if document == "PROTOCOL.md" && code.Advice() != match[4] {
				t.Errorf("%s advises %q, documented is %q", code.Name(), code.Advice(), match[4])
			}
		}
	}
	for _, code := range All() {
		if !documented[code] {
			t.Errorf("%d %s is in no document", code, code.Name())
		}
	}
	if len(documented) < 40 {
		t.Fatalf("only %d codes found in the documents", len(documented))
	}
}

func TestACodeOfANewerReleaseIsNotRetriable(t *testing.T) {
	for _, code := range []Code{99, 999} {
		if code.Retriable() || code.Name() == "" {
			t.Errorf("%d: %s, retriable %v", code, code.Name(), code.Retriable())
		}
	}
}
