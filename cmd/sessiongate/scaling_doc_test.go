package main

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What docs/scaling.md reckons follows from what it says was measured.
func TestScalingFollowsFromWhatWasMeasured(t *testing.T) {
	text, err := os.ReadFile("../../docs/scaling.md")
	if err != nil {
		t.Fatal(err)
	}
	unit := func(row string) float64 {
		t.Helper()
		m := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(row) + `[^|]*\| ([\d.,]+) `).FindSubmatch(text)
		if m == nil {
			t.Fatalf("no row %q among what was measured", row)
		}
		return number(t, string(m[1]))
	}
	bytes, request, opening := unit("a session in Redis"), unit("a request over sockets"), unit("opening a session")
	write, lease, load := unit("`Replace`"), unit("a lease"), unit("`Load`")
	refresh := lease + 2*write + 4*load
	if said := regexp.MustCompile(`four reads: (\d+) µs`).FindSubmatch(text); said == nil || math.Abs(number(t, string(said[1]))-refresh) > 1 {
		t.Errorf("a refresh is said to take %s µs, want %.0f", said, refresh)
	}
	rows := regexp.MustCompile(`(?m)^\| 10\^(\d) \|(.*)\|$`).FindAllSubmatch(text, -1)
	if len(rows) != 4 {
		t.Fatalf("%d rows are reckoned, want 4", len(rows))
	}
	const micro = 1e-6
	for _, row := range rows {
		sessions := math.Pow(10, number(t, string(row[1])))
		active := sessions / 5
		requests, refreshes, touches, logins := active/20, active/240, active/90, sessions/(8*3600)
		want := []float64{
			requests, refreshes, logins, sessions * bytes / 1e9,
			(logins*unit("`Create` and `End`") + refreshes*refresh + touches*unit("a touch")) * micro,
			(requests*request + refreshes*3*opening + logins*unit("a login")) * micro,
		}
		for i, cell := range strings.Split(string(row[2]), "|") {
			if got := number(t, cell); math.Abs(got-want[i]) > want[i]*0.15 {
				t.Errorf("10^%s sessions, column %d: %v, want about %.3g", row[1], i+2, got, want[i])
			}
		}
	}
}

// number reads one as people write it.
func number(t *testing.T, s string) float64 {
	t.Helper()
	s = strings.TrimSuffix(strings.ReplaceAll(strings.TrimSpace(s), ",", ""), " GB")
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
