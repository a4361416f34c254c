package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// UpstreamTLS names PEM files.
type UpstreamTLS struct {
	CA        string // trusted instead of the system's
	Cert, Key string // our client certificate
}

// newTransport makes the connections to one route's upstream.
func newTransport(c Route) (*http.Transport, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	dialer := &net.Dialer{Timeout: min(timeout, 10*time.Second), KeepAlive: 30 * time.Second}
	t := &http.Transport{
		// No Proxy: the route says where requests go, not the environment.
		DialContext:           dialer.DialContext,
		DisableCompression:    true, // bodies pass as they are (HT-13)
		MaxIdleConnsPerHost:   1024,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: timeout,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     c.Upstream.Scheme == "https",
	}
	if c.Upstream.Scheme == "unix" {
		socket := c.Upstream.Path
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
	}
	var err error
	t.TLSClientConfig, err = c.TLS.load()
	return t, err
}

func (c UpstreamTLS) load() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: no certificate in %s", c.CA)
		}
	}
	if c.Cert != "" {
		cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("tls: client certificate %s: %w", c.Cert, err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}

// buffers are what bodies are copied through, shared by all routes.
var buffers bufferPool

type bufferPool struct{ pool sync.Pool }

const bufferSize = 32 << 10

func (b *bufferPool) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferSize)
}

func (b *bufferPool) Put(buf []byte) { b.pool.Put((*[bufferSize]byte)(buf)) }
