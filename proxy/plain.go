package proxy

import (
	"net"
	"net/http"
	"strings"
)

// ServePlain answers a request that came without TLS to where apps are reached
// by TLS only. It takes the way of all requests as far as host and path; then
// people are sent to their app's origin, and all else is refused: whoever calls an
// API so has shown the network what he sends, and would go on if it worked (OP-03).
func (g *Gateway) ServePlain(w http.ResponseWriter, r *http.Request) {
	x := g.begin(w, r)
	x.plain = true
	x.run(r)
}

// errPlain refuses what came without TLS.
type errPlain struct{}

func (errPlain) Error() string { return "proxy: a request without TLS" }
func (errPlain) Code() string  { return "forbidden" }
func (errPlain) Help() string {
	return "This site is reached by https only. What was sent without it was not looked at, and others may have read it on its way."
}

// sendToTLS redirects a navigation to the same address at its app's origin, for
// good. Nothing of the request but path and query goes into that.
func (x *exchange) sendToTLS(r *http.Request) error {
	if !isNavigation(r.Method, r.Header) {
		return errPlain{}
	}
	location := x.app.origin + x.path
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		location += "?" + r.URL.RawQuery
	}
	x.ownAnswer(x.Header())
	x.Header().Set("Location", location)
	x.WriteHeader(http.StatusPermanentRedirect)
	return nil
}

// plainApp finds the app of a Host field in a request without TLS. It came to
// another port than the app's, or with another scheme's default one, so that the
// name decides where it means one app only.
func (g *Gateway) plainApp(host string) *app {
	if a := g.app(host); a != nil {
		return a
	}
	return g.names[strings.ToLower(hostname(host))]
}

// nameApps fills names.
func (g *Gateway) nameApps() {
	g.names = make(map[string]*app)
	for host, a := range g.apps {
		name := hostname(host)
		if other, taken := g.names[name]; taken && other != a {
			a = nil // two apps that differ in the port
		}
		g.names[name] = a
	}
}

// hostname is a Host field without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// misdirected tells a request that came on a connection made for another host,
// by a certificate that is not for this one: a browser takes such a connection for
// both only by mistake, or because somebody on the way made it so (RFC 9110,
// section 7.4).
//
// It fails open for trusted proxies, which ask for one name on behalf of all, and
// for clients that named no host, because they were shown a certificate that they
// had not asked for and went on.
func (x *exchange) misdirected(r *http.Request) bool {
	if r.TLS == nil || r.TLS.ServerName == "" || x.trusted || x.gateway.covers == nil {
		return false
	}
	name, host := r.TLS.ServerName, r.Host
	if len(host) >= len(name) && strings.EqualFold(host[:len(name)], name) && (len(host) == len(name) || host[len(name)] == ':') {
		return false
	}
	return !x.gateway.covers(name, hostname(host))
}
