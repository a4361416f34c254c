package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"sessiongate/cmd/sessiongate/config"
)

// healthcheck asks the gateway that runs by a configuration for its health: what
// a container's health check calls.
func healthcheck(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("healthcheck", stderr)
	ready := f.Bool("ready", false, "ask whether it can serve, not only whether it lives")
	path, err := configFlag(f, args)
	if err != nil {
		return err
	}
	// A configuration that was spoilt since says nothing about the running gateway,
	// which goes on by the former one.
	cfg, err := config.Load(path)
	if cfg == nil {
		return err
	}
	endpoint := "/healthz"
	if *ready {
		endpoint = "/readyz"
	}
	url := "http://" + reachable(cfg.Admin.Listen) + endpoint
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	// No proxy: the gateway is on this machine.
	res, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
	if err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 16<<10))
	if err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	_, _ = stdout.Write(body)
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("healthcheck: %s says %s", url, res.Status)
	}
	return nil
}

// reachable is where to find what listens on an address.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if address, err := netip.ParseAddr(host); host == "" || err == nil && address.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
