package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Class says who may call an endpoint of ours.
type Class int

const (
	// Navigation endpoints are for documents only: a link, an address that is
	// typed, a redirect.
	Navigation Class = iota + 1
	// Script endpoints are for fetch from pages of our own origin.
	Script
	// Events endpoints are for EventSource from pages of our own origin. The
	// request's context ends at a shutdown, too.
	Events
	// Provider endpoints are called by the provider's server, or framed by its
	// pages: from elsewhere, by those who have no cookie of ours. They see none.
	Provider
	// Public endpoints are text for everybody, without an effect.
	Public
)

// allows tells which methods make sense for a class: what is open to everybody
// has no effect, and EventSource knows no other method than GET.
func (c Class) allows(method string) bool {
	switch c {
	case Navigation, Script, Provider:
		return true
	case Events:
		return method == http.MethodGet
	case Public:
		return method == http.MethodGet || method == http.MethodHead
	}
	return false
}

// looksAtCookies tells the classes that have to do with a browser's session.
func (c Class) looksAtCookies() bool { return c != Provider && c != Public }

// Endpoint is one of our own endpoints.
type Endpoint struct {
	Method string // "GET"
	// Path is below App.BasePath: "login". Its last segment may be a parameter, as
	// in "sessions/{id}"; Serve finds it by the request's PathValue.
	Path  string
	Class Class
	// Serve answers. An error with a method Code() string is answered by that code
	// of DESIGN.md, section 7; header fields that Serve had set are dropped then,
	// but Set-Cookie.
	Serve func(http.ResponseWriter, *http.Request) error
}

// endpointPath is what answers at one path.
type endpointPath struct {
	methods map[string]Endpoint
	allow   string
	param   string // the name of the last segment, if that may be any
	meters  *meters
}

func (a *app) addEndpoints(endpoints []Endpoint, m *Metrics) error {
	a.endpoints = map[string]*endpointPath{}
	var faults []error
	for _, e := range endpoints {
		key, param, ok := splitParam(a.basePath + "/" + e.Path)
		p := a.endpoints[key]
		if p == nil {
			p = &endpointPath{methods: map[string]Endpoint{}, param: param, meters: m.meters(a.origin, a.basePath+"/"+e.Path)}
			a.endpoints[key] = p
		}
		if _, twice := p.methods[e.Method]; twice || !ok || p.param != param || e.Serve == nil || !e.Class.allows(e.Method) {
			faults = append(faults, fmt.Errorf("endpoint %s %s is incomplete, contradictory or there twice", e.Method, e.Path))
		}
		p.methods[e.Method] = e
	}
	for _, p := range a.endpoints {
		var methods []string
		for method := range p.methods {
			methods = append(methods, method)
		}
		slices.Sort(methods)
		p.allow = strings.Join(methods, ", ")
	}
	return errors.Join(faults...)
}

// splitParam takes the parameter off a path: "/bff/sessions/{id}" is found by
// "/bff/sessions/", which no path without a parameter ends like.
func splitParam(path string) (key, param string, ok bool) {
	key, last := cutLast(path)
	if strings.HasPrefix(last, "{") && strings.HasSuffix(last, "}") {
		return key, last[1 : len(last)-1], len(last) > 2 && !strings.ContainsAny(key, "{}")
	}
	return path, "", last != "" && !strings.ContainsAny(path, "{}")
}

// cutLast cuts a path behind its last slash.
func cutLast(path string) (parent, last string) {
	i := strings.LastIndexByte(path, '/') + 1
	return path[:i], path[i:]
}

// cutParam is a path for logs, without its parameter.
func cutParam(path string) string {
	parent, _ := cutLast(path)
	return parent + "…"
}

// endpoint finds what answers at a path, and the value of its parameter.
func (a *app) endpoint(path string) (p *endpointPath, value string) {
	parent, last := cutLast(path)
	if last == "" {
		return nil, ""
	}
	if p = a.endpoints[path]; p != nil {
		return p, ""
	}
	return a.endpoints[parent], last
}

// class is who may call what answers a request for one of our paths; 0 if
// nothing does.
func (a *app) class(method, path string) Class {
	p, _ := a.endpoint(path)
	if p == nil {
		return 0
	}
	return p.methods[method].Class
}

// serveEndpoint answers below base_path. HEAD is no GET here: it would have a
// GET's effect and nobody would see the answer. Only a row of its own allows it.
func (x *exchange) serveEndpoint(r *http.Request, path string) error {
	p, value := x.app.endpoint(path)
	if p == nil {
		return errNoRoute
	}
	x.meters = p.meters
	if p.param != "" {
		x.path = cutParam(x.path) // it names a session, which logs do by a hash
	}
	e, ok := p.methods[r.Method]
	if !ok {
		return notAllowed(p.allow)
	}
	if e.Class == Navigation {
		x.navigation = isNavigation(r.Method, r.Header)
		x.page = x.navigation
	}
	if err := admitEndpoint(e.Class, r.Header, x.app.origin); err != admitted {
		return x.rejected(r, err)
	}
	if p.param != "" {
		value, err := url.PathUnescape(value)
		if err != nil {
			return errNoRoute
		}
		r.SetPathValue(p.param, value)
	}
	x.ownAnswer(x.Header())
	switch {
	case e.Class == Events:
		return x.serveEvents(r, e)
	case !e.Class.looksAtCookies():
		delete(r.Header, "Cookie")
	}
	return e.Serve(x, r)
}

// serveEvents serves a stream of our own, which ends at a shutdown.
func (x *exchange) serveEvents(r *http.Request, e Endpoint) error {
	ctx, end := context.WithCancel(x)
	defer end()
	defer context.AfterFunc(x.gateway.streams, end)()
	x.events = true
	return e.Serve(x, r.WithContext(ctx))
}
