package redisstore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sessiongate/session"
)

func TestOptionsAreChecked(t *testing.T) {
	noTLS := func() (*tls.Config, error) { return &tls.Config{}, nil }
	nobody := func() (string, string, error) { return "", "", nil }
	for _, row := range []struct {
		name string
		o    Options
		want string // part of the error, "" for none
	}{
		{"one loopback address", Options{Addresses: []string{"127.0.0.1:6379"}}, ""},
		{"an IPv6 loopback address", Options{Addresses: []string{"[::1]:6379"}}, ""},
		{"localhost", Options{Addresses: []string{"localhost:6379"}}, ""},
		{"no address", Options{}, "no address"},
		{"an address without port", Options{Addresses: []string{"localhost"}}, "host:port"},
		{"a URL with a password, which is not repeated", Options{Addresses: []string{"redis://:canary@localhost:6379"}}, "an address with an @"},
		{"an address without host", Options{Addresses: []string{":6379"}}, "host:port"},
		{"ST-06 plain TCP to another machine", Options{Addresses: []string{"redis.example:6379"}}, "plain TCP"},
		{"ST-06 plain TCP to a name that only looks like loopback", Options{Addresses: []string{"127.0.0.1.example:6379"}}, "plain TCP"},
		{"plain TCP to another machine, where that is allowed", Options{Addresses: []string{"redis.example:6379"}, InsecurePlaintext: true}, ""},
		{"TLS to another machine", Options{Addresses: []string{"redis.example:6379"}, TLS: noTLS}, ""},
		{"several addresses of one server", Options{Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}}, "more than one address"},
		{"several addresses of a cluster", Options{Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}, Cluster: true}, ""},
		{"several sentinels", Options{Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}, Sentinel: Sentinel{Master: "m"}}, ""},
		{"a cluster with sentinels", Options{Addresses: []string{"127.0.0.1:1"}, Cluster: true, Sentinel: Sentinel{Master: "m"}}, "no Sentinels"},
		{"credentials of sentinels that are none", Options{Addresses: []string{"127.0.0.1:1"}, Sentinel: Sentinel{Credentials: nobody}}, "name of the master"},
		{"a database of a cluster", Options{Addresses: []string{"127.0.0.1:1"}, Cluster: true, DB: 1}, "database 1"},
		{"a database below 0", Options{Addresses: []string{"127.0.0.1:1"}, DB: -1}, "database -1"},
		{"a brace in the prefix", Options{Addresses: []string{"127.0.0.1:1"}, Prefix: "a{b}:"}, "prefix"},
		{"a space in the prefix", Options{Addresses: []string{"127.0.0.1:1"}, Prefix: "a b"}, "prefix"},
		{"a prefix that is no ASCII", Options{Addresses: []string{"127.0.0.1:1"}, Prefix: "ä:"}, "prefix"},
		{"a long prefix", Options{Addresses: []string{"127.0.0.1:1"}, Prefix: strings.Repeat("a", 101)}, "prefix"},
		{"a liveness below 0", Options{Addresses: []string{"127.0.0.1:1"}, Liveness: -1}, "liveness"},
		{"a grace below 0", Options{Addresses: []string{"127.0.0.1:1"}, Grace: -1}, "grace"},
		{"replicas below 0", Options{Addresses: []string{"127.0.0.1:1"}, WaitReplicas: -1}, "replicas"},
		{"a time-out below 0", Options{Addresses: []string{"127.0.0.1:1"}, Timeout: -time.Second}, "time-out"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, err := Open(row.o)
			if err == nil {
				s.Close()
			}
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("Open: error = %v, want one with %q", err, row.want)
			}
		})
	}
	_, err := Open(Options{Prefix: "{", DB: -1})
	for _, want := range []string{"no address", "prefix", "database"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open: error = %v, want all that is wrong, %q too", err, want)
		}
	}
}

// What a Sentinel or a node of a cluster names is not trusted more than what the
// operator named.
func TestNobodyIsDialledInPlainWhoMayNot(t *testing.T) {
	o := Options{Addresses: []string{"127.0.0.1:1"}}
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	c := o.client()
	_, err := c.DialCtxFn(t.Context(), "192.0.2.1:6379", &c.Dialer, nil)
	if !errors.Is(err, errPlaintext) {
		t.Errorf("dial: error = %v, want %v", err, errPlaintext)
	}
}

// authority signs certificates of 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// issue writes a certificate, its key and the authority's into a directory.
func (a authority) issue(t *testing.T, dir string) (cert, key, ca string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &secret.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	secretDER, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secretDER), write("ca.pem", "CERTIFICATE", a.cert.Raw)
}

// ST-06: TLS, with a CA that changes while the store is open.
func TestTLS(t *testing.T) {
	old, next := newAuthority(t), newAuthority(t)
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, ca := old.issue(t, t.TempDir())
	sv := launch(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca, "--tls-auth-clients", "no")
	var trusted atomic.Pointer[x509.CertPool]
	trusted.Store(next.pool())
	s := openWith(t, Options{
		Addresses: []string{"127.0.0.1:" + port},
		TLS: func() (*tls.Config, error) {
			pool := trusted.Load()
			if pool == nil {
				return nil, errors.New("no CA to be read")
			}
			return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
		},
	})
	var wrong *tls.CertificateVerificationError
	if err := s.Ping(t.Context()); !errors.As(err, &wrong) {
		t.Errorf("Ping of a server that nobody we trust vouches for: %v", err)
	}
	trusted.Store(old.pool())
	eventually(t, "Ping", func() error { return s.Ping(t.Context()) })
	session := create(t, s, record())

	// The server's certificate changes, and its connections end.
	cert, key, ca = next.issue(t, t.TempDir())
	for _, setting := range [][2]string{{"tls-cert-file", cert}, {"tls-key-file", key}, {"tls-ca-cert-file", ca}} {
		for i := 1; i < len(sv.args); i++ {
			if sv.args[i-1] == "--"+setting[0] {
				sv.args[i] = setting[1]
			}
		}
	}
	sv.kill()
	if err := sv.start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Ping", func() error {
		if err := s.Ping(t.Context()); !errors.As(err, &wrong) {
			return fmt.Errorf("error = %w, want that the certificate is nobody's", err)
		}
		return nil
	})
	trusted.Store(nil)
	_, err = s.Load(t.Context(), session)
	wantUnknown(t, "Load", err)
	trusted.Store(next.pool())
	eventually(t, "Ping", func() error { return s.Ping(t.Context()) })
}

// pains 41: after a failover by Sentinels the store goes on with the new master.
func TestSentinel(t *testing.T) {
	t.Parallel()
	master := launch(t, "--requirepass", "of-the-server", "--masterauth", "of-the-server")
	replica := launch(t, "--requirepass", "of-the-server", "--masterauth", "of-the-server", "--replicaof", "127.0.0.1 "+master.port)
	dir := t.TempDir()
	config := filepath.Join(dir, "sentinel.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, `sentinel monitor shop 127.0.0.1 %s 1
sentinel auth-pass shop of-the-server
sentinel down-after-milliseconds shop 500
sentinel failover-timeout shop 3000
requirepass of-the-sentinel
`, master.port), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel, err := newServer(dir, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sentinel.kill)
	s := openWith(t, Options{
		Addresses:   []string{sentinel.addr()},
		Credentials: func() (string, string, error) { return "", "of-the-server", nil },
		Sentinel: Sentinel{
			Master:      "shop",
			Credentials: func() (string, string, error) { return "", "of-the-sentinel", nil },
		},
		Timeout: 2 * time.Second,
	})
	eventually(t, "Ping", func() error { return s.Ping(t.Context()) })
	tag := random[session.Tag]()
	live, gone := create(t, s, record(tag)), create(t, s, record(tag))
	if _, err := s.End(t.Context(), gone, session.Logout, session.Condition{}); err != nil {
		t.Fatal(err)
	}
	c := replica.clientWith(t, "of-the-server")
	eventually(t, "replication", func() error {
		n, err := c.Do(t.Context(), c.B().Exists().Key(s.layout.of(live).session(live), s.layout.of(gone).session(gone)).Build()).ToInt64()
		if err == nil && n < 2 {
			err = fmt.Errorf("%d of 2 sessions are there", n)
		}
		return err
	})
	// Sentinel has to know the replica before there is one to promote.
	watch := sentinel.clientWith(t, "of-the-sentinel")
	eventually(t, "the sentinel sees the replica", func() error {
		found, err := watch.Do(t.Context(), watch.B().Arbitrary("SENTINEL", "REPLICAS", "shop").Build()).ToArray()
		if err == nil && len(found) == 0 {
			err = errors.New("none")
		}
		return err
	})
	e := follow(s)
	wantTrust(t, s, live)
	doubts := e.doubts.Load()
	begun := time.Now()
	master.kill()
	eventually(t, "Replace", func() error {
		found, err := s.Load(t.Context(), live)
		if err != nil && isAnswer(err) {
			t.Errorf("Load of a session that lives: %v", err)
		}
		if found.Version == 2 && string(found.Data) == "new" {
			return nil // a former call was carried out and its answer was lost
		}
		return errors.Join(err, s.Replace(t.Context(), live, 1, []byte("new")))
	})
	t.Logf("back %v after the master was killed", time.Since(begun))
	wantDoubt(t, e, doubts) // the new one may know less
	wantTrust(t, s, live)
	t.Logf("trusted again %v after", time.Since(begun))
	var end *session.Ended
	if _, err := s.Load(t.Context(), gone); !errors.As(err, &end) {
		t.Errorf("Load of a session that ended: %v", err)
	}
}
