package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"time"
)

// UpstreamTLS says whom to trust as the upstream, and who we are to it.
type UpstreamTLS struct {
	CA          *x509.CertPool   // nil: the system's
	Certificate *tls.Certificate // ours; nil: none
	// InsecureSkipVerify sends tokens to whoever answers in the upstream's place. It
	// is for trying things out.
	InsecureSkipVerify bool
}

// newTransport makes the connections to one route's upstream.
func newTransport(c Route) *http.Transport {
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
		TLSClientConfig:       c.TLS.config(),
	}
	if c.Upstream.Scheme == "h2c" {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	if c.Upstream.Scheme == "unix" {
		socket := c.Upstream.Path
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
	}
	return t
}

// config verifies the upstream, unless it was told not to (PX-18).
func (c UpstreamTLS) config() *tls.Config {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.CA, InsecureSkipVerify: c.InsecureSkipVerify}
	if c.Certificate != nil {
		conf.Certificates = []tls.Certificate{*c.Certificate}
	}
	return conf
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
