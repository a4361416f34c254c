package proxy

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

const (
	errTwoHosts = badPath("the request names two hosts")
	errLength   = badPath("the request's length is not clear")
	errHost     = badPath("the host is not one")
)

// checkHTTP2 refuses what net/http lets through of HTTP/2 and no server in front
// of or behind us has to read as we do.
func (x *exchange) checkHTTP2(r *http.Request) error {
	switch {
	case r.ProtoMajor != 2:
		return nil
	case r.TLS == nil && !x.trusted:
		return errForbidden // browsers speak it over TLS only; without, it is for balancers that are trusted
	}
	// The Host field is a second place for what :authority says (RFC 9113, section
	// 8.3.1).
	if v := r.Header["Host"]; len(v) > 1 || len(v) == 1 && v[0] != r.Host {
		return errTwoHosts
	}
	// net/http takes the first of many, and what is no number for 0 (RFC 9113,
	// section 8.1.1).
	if v := r.Header["Content-Length"]; len(v) > 1 || len(v) == 1 && v[0] != strconv.FormatInt(r.ContentLength, 10) {
		return errLength
	}
	return nil
}

// noApp is the refusal of a host that nobody configured: it may be another
// server's, or no host at all (RFC 9112, section 3.2).
func noApp(host string) error {
	u, err := url.Parse("//" + host)
	if err != nil || u.Host != host || u.User != nil || host != "" && host[0] != '[' && strings.Count(host, ":") > 1 {
		return errHost
	}
	return errUnknownHost
}
