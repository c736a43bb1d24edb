// Package vectors reads the golden vectors of the repository (tests/vectors), which every language reads and writes. It is
// for tests only.
package vectors

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Root is the root of the repository: the nearest directory above the package under test that has tests/vectors.
func Root(t testing.TB) string {
	t.Helper()
	directory, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(directory, "tests", "vectors")); err == nil {
			return directory
		}
		parent := filepath.Dir(directory)
		if parent == directory {
			t.Skip("tests/vectors is not above this package: the module was taken out of its repository")
		}
		directory = parent
	}
}

// Load decodes tests/vectors/<name>.json into a value of the caller's.
func Load(t testing.TB, name string, into any) {
	t.Helper()
	bytes, err := os.ReadFile(filepath.Join(Root(t), "tests", "vectors", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(bytes, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// Hex is a byte string that stands in JSON as hexadecimal digits; null becomes nil.
type Hex []byte

// UnmarshalJSON decodes the digits.
func (h *Hex) UnmarshalJSON(text []byte) error {
	var digits *string
	if err := json.Unmarshal(text, &digits); err != nil || digits == nil {
		return err
	}
	bytes, err := hex.DecodeString(*digits)
	if bytes == nil {
		bytes = []byte{}
	}
	*h = bytes
	return err
}
