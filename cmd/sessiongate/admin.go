package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// adminHandler serves health and metrics (DESIGN.md, section 8).
func (s *server) adminHandler(listen string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{ErrorLog: s.public.ErrorLog}))
	host, _, _ := net.SplitHostPort(listen)
	return guardAdmin(host, mux)
}

// guardAdmin keeps web pages out: they send Origin with what they may not read
// anyway, and a name that was rebound to this address is none of those allowed.
func guardAdmin(configured string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case len(r.Header["Origin"]) > 0 || !isAdminHost(r.Host, configured):
			http.Error(w, "forbidden", http.StatusForbidden)
		case r.Method != http.MethodGet:
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isAdminHost allows loopback names where the listener is on loopback: a name
// that a web page had rebound to it is none. Elsewhere the network decides who
// comes, by whatever name its health checks and scrapers know us.
func isAdminHost(hostport, configured string) bool {
	if !isLoopbackHost(configured) {
		return true
	}
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	return isLoopbackHost(host) || strings.EqualFold(host, configured)
}

func isLoopbackHost(host string) bool {
	address, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && address.IsLoopback()
}

func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{"status": "ok"})
}

// readiness is the answer of readyz. Providers are told and count for nothing:
// sessions go on without them (OP-07).
type readiness struct {
	Ready         bool              `json:"ready"`
	Stopping      bool              `json:"stopping"`
	Store         string            `json:"store"`
	Configuration string            `json:"configuration"`
	Providers     map[string]string `json:"providers"` // by the app's origin
}

func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	e := s.current.Load()
	state := readiness{Stopping: s.draining.Load(), Store: "ok", Configuration: "ok", Providers: make(map[string]string)}
	if err := s.store.Ping(ctx); err != nil {
		state.Store = "unavailable"
		s.log.Warn("the store does not answer", "event", "store_unavailable", "error", err)
	}
	if s.refused.Load() {
		state.Configuration = "the last reload was refused, the former configuration is in force"
	}
	for i, client := range e.clients {
		state.Providers[e.cfg.Apps[i].Origin] = "ok"
		if client.Ready() != nil {
			state.Providers[e.cfg.Apps[i].Origin] = "unavailable"
		}
	}
	state.Ready = !state.Stopping && state.Store == "ok"
	status := http.StatusOK
	if !state.Ready {
		status = http.StatusServiceUnavailable
	}
	reply(w, status, state)
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
