package proxy

import (
	"errors"
	"fmt"
	"net/http"
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
)

// Endpoint is one of our own endpoints.
type Endpoint struct {
	Method, Path string // "GET", "login": below App.BasePath
	Class        Class
	// Serve answers. An error with a method Code() string is answered by that code
	// of DESIGN.md, section 7; header fields that Serve had set are dropped then,
	// but Set-Cookie.
	Serve func(http.ResponseWriter, *http.Request) error
}

// endpointPath is what answers at one path.
type endpointPath struct {
	methods map[string]Endpoint
	allow   string
	meters  *meters
}

func (a *app) addEndpoints(endpoints []Endpoint, m *Metrics) error {
	a.endpoints = map[string]*endpointPath{}
	var faults []error
	for _, e := range endpoints {
		path := a.basePath + "/" + e.Path
		p := a.endpoints[path]
		if p == nil {
			p = &endpointPath{methods: map[string]Endpoint{}, meters: m.meters(a.origin, path)}
			a.endpoints[path] = p
		}
		if _, twice := p.methods[e.Method]; twice || e.Serve == nil || e.Class != Navigation && e.Class != Script {
			faults = append(faults, fmt.Errorf("endpoint %s %s is incomplete or there twice", e.Method, e.Path))
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

// serveEndpoint answers below base_path. HEAD is no GET here: it would have a
// GET's effect and nobody would see the answer.
func (x *exchange) serveEndpoint(r *http.Request, path string) error {
	p := x.app.endpoints[path]
	if p == nil {
		return errNoRoute
	}
	x.meters = p.meters
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
	x.ownAnswer(x.Header())
	return e.Serve(x, r)
}
