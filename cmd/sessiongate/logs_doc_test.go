package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// logged finds the names of events in the source.
var logged = regexp.MustCompile(`"event", "([a-z_]+)"|slog\.Level[A-Za-z]+, "[^"]+", "([a-z_]+)"`)

// Whoever reads the log finds each event in the table of docs/operations.md.
func TestEveryEventIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, pattern := range []string{"*.go", "../../session/*.go", "../../session/*/*.go", "../../oidc/*.go", "../../proxy/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, names := range logged.FindAllSubmatch(source, -1) {
				found++
				if name := string(names[1]) + string(names[2]); !strings.Contains(string(text), "`"+name+"`") {
					t.Errorf("%s logs the event %s, which docs/operations.md does not name", file, name)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("%d events were found in the source: they are logged in another way now", found)
	}
}
