package proxy

import (
	"cmp"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// HT-04: a proxy that appends to a Forwarded header which it does not understand
// puts its own element between somebody else's quotes. nginx warns of that.
func TestHT04NobodyHidesHisAddressInForwarded(t *testing.T) {
	g := &Gateway{trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for _, row := range []struct{ name, forwarded, client string }{
		{"what the proxy appends is honest", `for=198.51.100.1, for=203.0.113.7`, "203.0.113.7"},
		{"a quote that is never closed", `for=198.51.100.1;x=", for=203.0.113.7`, "127.0.0.1"},
		{"a quote that the proxy's own closes", `for=198.51.100.1;x=", for="203.0.113.7"`, "127.0.0.1"},
		{"a quote that ends in an escape", `for=198.51.100.1;x="\", for="203.0.113.7"`, "127.0.0.1"},
		{"a quote in a token", `for=198.51.100.1;x=a", for="203.0.113.7"`, "127.0.0.1"},
		{"two addresses in one hop", `for=203.0.113.7;for=198.51.100.1`, "127.0.0.1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := g.clientBehind("127.0.0.1", http.Header{"Forwarded": {row.forwarded}}); got != row.client {
				t.Errorf("%s comes from %s, want %s", row.forwarded, got, row.client)
			}
		})
	}
}

// FuzzForwarded: whoever writes what to the left of a trusted proxy, the client is
// the peer or a hop of the header, and only trusted hops stand behind it (HT-04).
func FuzzForwarded(f *testing.F) {
	g := &Gateway{}
	for _, p := range []string{"127.0.0.0/8", "10.0.0.0/8", "fd00::/8"} {
		g.trusted = append(g.trusted, netip.MustParsePrefix(p))
	}
	for _, s := range []string{
		"10.1.1.1", "203.0.113.7, 10.1.1.1", "10.9.9.9, 203.0.113.7:80,[fd00::1]:80", "::ffff:10.1.1.1", "fd00::1%eth0, [fd00::2]", "a,,b", "10.1.1.1,", "0x0a.1.1.1", "[10.1.1.1",
		"for=203.0.113.7", `for=10.9.9.9;proto=http, For="[2001:db8::7]:4711";by="a,b"`, `for="10.1.1.1";for=10.1.1.2`, `for=_hidden, for="unknown"`, `for=198.51.100.1;x="`, `for="\"`, `by=";,";for="10.1.1.1"`,
	} {
		for _, honest := range []string{"203.0.113.7", "10.1.1.1", "2001:db8::7"} {
			f.Add(s, "", "127.0.0.1", honest)
			f.Add("", s, "10.0.0.9", honest)
		}
	}
	f.Fuzz(func(t *testing.T, first, second, peer, honest string) {
		if strings.ContainsAny(first+second, "\r\n\x00") {
			return // net/http lets no such header in
		}
		got := g.clientBehind(peer, http.Header{"X-Forwarded-For": {first, second}})
		if want := believed(g, peer, strings.Split(first+","+second, ","), true); got != want[len(want)-1] {
			t.Fatalf("X-Forwarded-For %q, %q from %s is of %q, want one of %q", first, second, peer, got, want)
		}
		got = g.clientBehind(peer, http.Header{"Forwarded": {first, second}})
		if want := believed(g, peer, append(hopsOf(first), hopsOf(second)...), false); !slices.Contains(want, got) {
			t.Fatalf("Forwarded %q, %q from %s is of %q, want one of %q", first, second, peer, got, want)
		}
		for _, header := range []string{first, second} {
			checkHonest(t, g, "X-Forwarded-For", header, honest)
			checkHonest(t, g, "Forwarded", header, honest)
		}
	})
}

// checkHonest lets a trusted proxy append the address it sees to a header that
// comes from there.
func checkHonest(t *testing.T, g *Gateway, name, header, honest string) {
	t.Helper()
	a, err := netip.ParseAddr(honest)
	if err != nil || a.Zone() != "" || a.Is4In6() || g.trusts(honest) {
		return
	}
	forms := []string{honest}
	if name == "Forwarded" {
		forms = []string{"for=" + honest, `for="` + honest + `"`, `for="[` + honest + `]:4711"`, `for="[` + honest + `]";by="10.1.1.1";proto=https`}
		if a.Is4() {
			forms = forms[:2]
		}
	}
	for _, form := range forms {
		got := g.clientBehind("127.0.0.1", http.Header{name: {header + ", " + form}})
		if got != a.String() && got != "127.0.0.1" {
			t.Fatalf("%s %q, then %s by a trusted proxy, is of %s", name, header, form, got)
		}
		got = g.clientBehind("127.0.0.1", http.Header{name: {header, form}})
		if got != a.String() {
			t.Fatalf("%s %q, then %s in a line of its own, is of %s", name, header, form, got)
		}
	}
}

var (
	pairs     = regexp.MustCompile(`([^=;,"]*)=[ \t]*("(?:[^"\\]|\\.)*"|[^;,"]*)`)
	portOfHop = regexp.MustCompile(`^\[([^\]]*)\](?::(\d+))?$|^([^:]*):(\d+)$`)
)

// hopsOf reads what is said of "for" in a line of Forwarded.
func hopsOf(line string) []string {
	var hops []string
	for _, m := range pairs.FindAllStringSubmatch(line, -1) {
		if strings.EqualFold(strings.TrimSpace(m[1]), "for") {
			hops = append(hops, strings.Trim(strings.TrimSpace(m[2]), `"`))
		}
	}
	return hops
}

// believed lists who may be the client: the peer, then hops from right to left for
// as long as those before are trusted, and for as long as they are addresses if
// junk ends the list.
func believed(g *Gateway, peer string, hops []string, junkEnds bool) []string {
	list := []string{peer}
	slices.Reverse(hops)
	for _, hop := range hops {
		hop = strings.TrimSpace(hop)
		if m := portOfHop.FindStringSubmatch(hop); m != nil {
			if _, err := strconv.ParseUint(cmp.Or(m[2], m[4], "0"), 10, 16); err == nil && (m[2] == "" || strings.Contains(m[1], ":")) {
				hop = m[1] + m[3]
			}
		}
		a, err := netip.ParseAddr(hop)
		if strings.Count(hop, "]") > 1 {
			err = strconv.ErrSyntax // netip takes them for a zone
		}
		if err != nil && junkEnds {
			break
		}
		if err != nil {
			continue
		}
		a = a.WithZone("").Unmap()
		list = append(list, a.String())
		if !slices.ContainsFunc(g.trusted, func(p netip.Prefix) bool { return p.Contains(a) }) {
			break
		}
	}
	return list
}
