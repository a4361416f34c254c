package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/security.md says of every item of the lists by which gateways of this kind
// are judged what proves it, or why it does not apply. What it names has to exist.
func TestTheSecurityDocumentNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	const root = "../.."
	text, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	for group, n := range map[string]int{"CSRF": 15, "HT": 15, "OP": 14, "PX": 25, "SES": 17} {
		for i := range n {
			if id := fmt.Sprintf("| %s-%02d |", group, i+1); !strings.Contains(doc, id) {
				t.Errorf("docs/security.md has no row %s", id)
			}
		}
	}
	tests := testsBelow(t, root)
	named := 0
	for _, m := range regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z0-9]\\w*)[`/]").FindAllStringSubmatch(doc, -1) {
		if named++; !tests[m[1]] {
			t.Errorf("docs/security.md names %s, which is no test", m[1])
		}
	}
	if named < 100 {
		t.Errorf("docs/security.md names %d tests only", named)
	}
	for _, m := range regexp.MustCompile("`([a-z0-9]+(?:/[a-z0-9_]+)+\\.(?:test\\.js|go|json))`").FindAllStringSubmatch(doc, -1) {
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			t.Errorf("docs/security.md names a file that is not there: %v", err)
		}
	}
}

// testsBelow lists the names of all test functions.
func testsBelow(t *testing.T, root string) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && path != root) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(src, -1) {
			names[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
