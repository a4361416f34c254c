package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// providerHost is a Host value at which an app can be reached by its provider
// and by nobody else.
type providerHost struct {
	name, port string // port "": any
	app        *app
}

// addProviderHosts accepts hosts as a Host field names them (RFC 9110, section
// 7.2).
func (g *Gateway) addProviderHosts(a *app, hosts []string) error {
	var faults []error
	for _, host := range hosts {
		u, err := url.Parse("http://" + host)
		if err != nil || u.Host != host || u.Hostname() == "" || strings.HasSuffix(host, ":") || host != strings.ToLower(host) || strings.Contains(host, "*") {
			faults = append(faults, fmt.Errorf("proxy: app %s: provider host %q is not host or host:port in lower case", a.origin, host))
			continue
		}
		g.callers = append(g.callers, providerHost{u.Hostname(), u.Port(), a})
	}
	return errors.Join(faults...)
}

// checkProviderHosts refuses hosts at which it is not clear whom a call is for.
// Apps at one host are told apart by base_path.
func (g *Gateway) checkProviderHosts() error {
	var faults []error
	for i, h := range g.callers {
		for host, a := range g.apps {
			if a != h.app && host == a.hosts[0] && slices.ContainsFunc(a.hosts, h.matches) {
				faults = append(faults, fmt.Errorf("proxy: app %s: provider host %s is the host of %s", h.app.origin, h.name, a.origin))
			}
		}
		for _, other := range g.callers[:i] {
			if h.app != other.app && h.name == other.name && (h.port == other.port || h.port == "" || other.port == "") &&
				h.app.basePath == other.app.basePath {
				faults = append(faults, fmt.Errorf("proxy: apps %s and %s: provider host %s needs different base_paths", other.app.origin, h.app.origin, h.name))
			}
		}
	}
	return errors.Join(faults...)
}

func (h providerHost) matches(host string) bool {
	name, port := host, ""
	if n, p, err := net.SplitHostPort(host); err == nil {
		name, port = n, p
	} else {
		name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	}
	return strings.EqualFold(name, h.name) && (h.port == "" || port == h.port)
}

// appOfProvider finds the app that a call of its provider's server is for.
func (g *Gateway) appOfProvider(r *http.Request) *app {
	if len(g.callers) == 0 || r.Method != http.MethodPost {
		return nil
	}
	path, err := canonicalPath(r)
	if err != nil {
		return nil
	}
	for _, h := range g.callers {
		if h.app.class(r.Method, path.match) == Provider && h.matches(r.Host) {
			return h.app
		}
	}
	return nil
}
