package proxy

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sessiongate/session"
)

const sessionCookieName = "__Host-Http-session"

// ours is what session.App.OwnsCookie says.
func ours(name string) bool {
	rest, ok := strings.CutPrefix(name, sessionCookieName)
	return ok && (rest == "" || rest[0] == '-')
}

// PX-01, pain 55.
func TestPX01StripCookies(t *testing.T) {
	const s = sessionCookieName
	tests := []struct {
		name      string
		in, want  []string
		untouched bool
	}{
		{name: "no cookie", in: nil, want: nil},
		{name: "only ours", in: []string{s + "=x"}, want: nil},
		{name: "ours at the beginning", in: []string{s + "=x; a=1; b=2"}, want: []string{"a=1; b=2"}},
		{name: "ours in the middle", in: []string{"a=1; " + s + "=x; b=2"}, want: []string{"a=1; b=2"}},
		{name: "ours at the end", in: []string{"a=1; b=2; " + s + "=x"}, want: []string{"a=1; b=2"}},
		{name: "ours everywhere", in: []string{s + "=x; a=1; " + s + "-flow-1=y; b=2; " + s + "-loop=z"}, want: []string{"a=1; b=2"}},
		{name: "ours twice", in: []string{s + "=x; " + s + "=y"}, want: nil},
		{name: "ours with a quoted value", in: []string{"a=1; " + s + `="x"; b=2`}, want: []string{"a=1; b=2"}},
		{name: "ours with an empty value", in: []string{"a=1; " + s + "=; b=2"}, want: []string{"a=1; b=2"}},
		{name: "ours without a value", in: []string{"a=1; " + s + "; b=2"}, want: []string{"a=1; b=2"}},
		{name: "ours without a space before it", in: []string{"a=1;" + s + "=x;b=2"}, want: []string{"a=1;b=2"}},
		{name: "ours with tabs and spaces around it", in: []string{"a=1;\t " + s + " \t= x\t; b=2"}, want: []string{"a=1; b=2"}},
		{name: "ours as the value of a nameless cookie", in: []string{"a=1; =" + s + "=x; b=2"}, want: []string{"a=1; b=2"}},
		{name: "ours as the value of a nameless cookie, hidden better", in: []string{"a=1; = =" + s + "=x; b=2"}, want: []string{"a=1; b=2"}},
		{name: "ours between quotes of another cookie", in: []string{`a="1; ` + s + `=x; b=2"`}, want: []string{`a="1; b=2"`}},
		{name: "several lines, ours in one", in: []string{"a=1", s + "=x", "b=2"}, want: []string{"a=1", "b=2"}},
		{name: "several lines, ours in all", in: []string{"a=1; " + s + "=x", s + "-f=y; b=2"}, want: []string{"a=1", "b=2"}},
		{name: "several lines of ours", in: []string{s + "=x", s + "-f=y"}, want: nil},
		{name: "ours and empty cookies", in: []string{"; " + s + "=x;; \t;"}, want: nil},
		{name: "empty cookies among the app's", in: []string{"a=1;;b;" + s + "=x"}, want: []string{"a=1;;b"}},
		{name: "spaces at the end of what remains", in: []string{"a=1 ; " + s + "=x"}, want: []string{"a=1"}},

		{name: "none of ours", in: []string{"a=1;;b;  c = 2 ;"}, untouched: true},
		{name: "an odd line beside none of ours", in: []string{"", ";", "a"}, untouched: true},
		{name: "a name that begins like ours", in: []string{s + "2=x; " + s + "_flow=y; " + s + ".a=z"}, untouched: true},
		{name: "a name that ends like ours", in: []string{"x" + s + "=x"}, untouched: true},
		{name: "ours in lower case, which is another cookie", in: []string{"__host-http-session=x"}, untouched: true},
		{name: "ours as a value", in: []string{"a=" + s + "; b=" + s + "=x"}, untouched: true},
		{name: "ours with an invisible character", in: []string{"\u00a0" + s + "=x"}, untouched: true},
		{name: "quoted values of the app", in: []string{`a="x y,z"; b="1"`}, untouched: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.untouched {
				tt.want = tt.in
			}
			h := http.Header{"Accept": {"*/*"}}
			if tt.in != nil {
				h["Cookie"] = slices.Clone(tt.in)
			}
			stripCookies(h, ours)
			if got, ok := h["Cookie"]; !slices.Equal(got, tt.want) || ok != (tt.want != nil) {
				t.Errorf("Cookie %q became %q (present: %v), want %q", tt.in, got, ok, tt.want)
			}
			if h.Get("Accept") != "*/*" {
				t.Errorf("Accept is gone: %v", h)
			}
		})
	}
}

func TestStripCookiesAllocations(t *testing.T) {
	const s = sessionCookieName
	tests := []struct {
		name  string
		lines []string
		want  float64
	}{
		{"no cookie", nil, 0},
		{"none of ours", []string{"a=1; b=2; theme=dark", "c=3"}, 0},
		{"ours among others, in several lines", []string{"a=1; " + s + "=x; b=2", s + "-f=y; c=3", "d=4"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lines := make([]string, len(tt.lines))
			h := http.Header{}
			if got := testing.AllocsPerRun(100, func() {
				if copy(lines, tt.lines) > 0 {
					h["Cookie"] = lines
				}
				stripCookies(h, ours)
			}); got > tt.want {
				t.Errorf("%v allocations, want %v", got, tt.want)
			}
		})
	}
}

// None of ours remains, however somebody reads them; the app's stay byte for byte,
// and are the same to whoever reads them by net/http.
func FuzzStripCookies(f *testing.F) {
	const s = sessionCookieName
	for _, lines := range [][2]string{
		{"a=1; " + s + "=x; b=2", ""},
		{"a=1;;b;" + s + "=x", s + "-flow=y"},
		{`a="1; ` + s + `="x"; b="2"`, "=" + s + "=x"},
		{s + "2=x; " + s + " =y;\t" + s + "=z", "__host-http-session=1"},
		{"; ;=;==;" + s, " a = \"b c\" ;d=,"},
		{"a=1 ;" + s + "=x; ", "\ta=2"},
	} {
		f.Add(lines[0], lines[1])
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		if strings.ContainsAny(first+second, "\r\n\x00") || strings.Count(first+second, ";") > 1000 {
			return // net/http lets no such header in
		}
		r := &http.Request{Header: http.Header{"Cookie": {first, second}}}
		var want, got []string
		for _, c := range r.Cookies() {
			if !ours(c.Name) {
				want = append(want, c.String())
			}
		}
		stripCookies(r.Header, ours)
		for _, c := range r.Cookies() {
			got = append(got, c.String())
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q, %q became %q: cookies %q, want %q", first, second, r.Header["Cookie"], got, want)
		}
		if kept := slices.Concat(keep(first), keep(second)); !slices.Equal(kept, r.Header["Cookie"]) {
			t.Fatalf("%q, %q became %q, want %q", first, second, r.Header["Cookie"], kept)
		}
		for _, name := range []string{sessionCookieName, sessionCookieName + "-flow-0", sessionCookieName + "-"} {
			if value, n := session.FindCookie(r.Header, name); n > 0 {
				t.Fatalf("%q, %q became %q, which still has %s=%s", first, second, r.Header["Cookie"], name, value)
			}
		}
		before := maps.Clone(r.Header)
		stripCookies(r.Header, ours)
		if !slices.Equal(before["Cookie"], r.Header["Cookie"]) {
			t.Fatalf("%q, a second time, became %q", before["Cookie"], r.Header["Cookie"])
		}
	})
}

// oursByPattern is a cookie of ours in a Cookie header, however it is spaced, or
// nameless.
var oursByPattern = regexp.MustCompile(`^[ \t=]*` + regexp.QuoteMeta(sessionCookieName) + `([ \t]*|-[^=]*)(=|$)`)

// keep is a line less our cookies. One of which nothing is left is gone; one
// without ours is as it came.
func keep(line string) []string {
	cookies := strings.Split(line, ";")
	kept := slices.DeleteFunc(slices.Clone(cookies), oursByPattern.MatchString)
	rest := strings.Join(kept, ";")
	switch {
	case len(kept) == len(cookies):
		return []string{line}
	case strings.Trim(rest, " \t;") == "":
		return nil
	}
	return []string{strings.Trim(rest, " \t")}
}

// PX-17, SES-06.
func TestPX17OwnsSetCookie(t *testing.T) {
	const s = sessionCookieName
	owns := ownsFolded(s)
	tests := []struct {
		name, line string
		want       bool
	}{
		{"the session cookie", s + "=x; Path=/", true},
		{"its deletion", s + "=; Max-Age=0", true},
		{"without a value", s, true},
		{"without a value, but with attributes", s + "; Path=/", true},
		{"a flow cookie", s + "-flow-1=x", true},
		{"in lower case", "__host-http-session=x", true},
		{"in upper case, of a flow", "__HOST-HTTP-SESSION-FLOW=x", true},
		{"with space around the name", " \t" + s + "\t =x", true},
		{"as a nameless cookie", "=" + s + "=x", true},
		{"as a nameless cookie with space", " = " + s + "=x; Secure", true},
		{"as a nameless cookie with two equals signs", "==" + s + "=x", true},
		{"a cookie of the app", "theme=dark; Path=/", false},
		{"a name that begins like ours", s + "2=x", false},
		{"a name that ends like ours", "x" + s + "=x", false},
		{"ours as a value", "a=" + s + "=x", false},
		{"ours among the attributes", "a=1; " + s + "=x", false},
		{"nothing", "", false},
		{"a nameless cookie of the app", "=dark", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ownsSetCookie(tt.line, owns); got != tt.want {
				t.Errorf("ownsSetCookie(%q) = %v, want %v", tt.line, got, tt.want)
			}
		})
	}
}

func BenchmarkStripCookies(b *testing.B) {
	for name, line := range map[string]string{
		"none of ours": "theme=dark; locale=de-DE; _ga=GA1.1.123456789.1700000000",
		"ours":         "theme=dark; " + sessionCookieName + "=" + strings.Repeat("x", 120) + "; locale=de-DE",
	} {
		b.Run(name, func(b *testing.B) {
			h, lines := http.Header{}, []string{line}
			b.ReportAllocs()
			for b.Loop() {
				lines[0] = line
				h["Cookie"] = lines
				stripCookies(h, ours)
			}
		})
	}
}
