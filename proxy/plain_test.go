package proxy

import (
	"crypto/tls"
	"net/http/httptest"
	"testing"
)

// TestMisdirected: the certificate is asked about all hosts but the one that the
// connection was made for.
func TestMisdirected(t *testing.T) {
	for _, row := range []struct {
		name, sni, host, asked string
	}{
		{"the host itself", "shop.example.com", "shop.example.com", ""},
		{"with a port", "shop.example.com", "shop.example.com:8443", ""},
		{"in another case", "SHOP.example.com", "shop.EXAMPLE.com", ""},
		{"another host", "shop.example.com", "evil.example", "evil.example"},
		{"a host that begins alike", "shop.example", "shop.example.com", "shop.example.com"},
		{"a host that ends alike", "example.com", "shop.example.com:8443", "shop.example.com"},
		{"an address", "shop.example.com", "[::1]:8443", "::1"},
		{"no name", "", "shop.example.com", ""},
	} {
		asked := ""
		g := &Gateway{covers: func(name, host string) bool {
			if name != row.sni {
				t.Errorf("%s: asked for %q", row.name, name)
			}
			asked = host
			return false
		}}
		r := httptest.NewRequest("GET", "https://example.org/", nil)
		r.TLS, r.Host = &tls.ConnectionState{ServerName: row.sni}, row.host
		got := (&exchange{gateway: g}).misdirected(r)
		if asked != row.asked || got != (row.asked != "") {
			t.Errorf("%s: misdirected %v, asked about %q", row.name, got, asked)
		}
	}
}

// TestAppsThatDifferInThePort: without TLS the port says nothing, and then nobody
// is sent to one of two apps by chance.
func TestAppsThatDifferInThePort(t *testing.T) {
	a, b, c := &app{}, &app{}, &app{}
	g := &Gateway{apps: map[string]*app{"shop.test": a, "shop.test:443": a, "two.test:1": b, "two.test:2": c, "[::1]:8443": b}}
	g.nameApps()
	for host, want := range map[string]*app{
		"shop.test": a, "shop.test:443": a, "shop.test:80": a, "SHOP.test": a, "[::1]": b, "[::1]:80": b,
		"two.test:1": b, "two.test:2": c, "two.test": nil, "two.test:80": nil, "other.test": nil, "": nil,
	} {
		if got := g.plainApp(host); got != want {
			t.Errorf("%q: another app", host)
		}
	}
}
