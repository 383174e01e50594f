package etcdstore

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"daybreak/orchestrator/store"
)

const (
	dialTimeout      = 5 * time.Second
	keepAliveEvery   = 10 * time.Second
	keepAliveTimeout = 5 * time.Second
)

// Dial returns a client of an etcd cluster, version 3.6 or later, started with --max-txn-ops=1024. Endpoints are URLs
// or host:port. Without TLS only unix sockets and loopback addresses are allowed. It does not wait for a connection.
func Dial(endpoints []string, config *tls.Config) (*clientv3.Client, error) {
	if len(endpoints) == 0 {
		return nil, fmt.Errorf("dial etcd: no endpoint given: %w", store.ErrInvalid)
	}
	for _, endpoint := range endpoints {
		encrypted, err := checkEndpoint(endpoint, config != nil)
		if err != nil {
			return nil, fmt.Errorf("dial etcd: endpoint %q: %w", endpoint, err)
		}
		if encrypted && config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		TLS:                  config,
		DialTimeout:          dialTimeout,
		DialKeepAliveTime:    keepAliveEvery,
		DialKeepAliveTimeout: keepAliveTimeout,
		PermitWithoutStream:  true,
		Logger:               zap.NewNop(), // what it has to say comes back as errors, too
	})
	if err != nil {
		return nil, fmt.Errorf("dial etcd: %w", err)
	}
	return client, nil
}

// checkEndpoint reports whether an endpoint is encrypted, and refuses one that should be and is not.
func checkEndpoint(endpoint string, haveTLS bool) (encrypted bool, err error) {
	scheme, rest, ok := strings.Cut(endpoint, "://")
	if path, isUnix := strings.CutPrefix(endpoint, "unix:"); isUnix && !ok {
		scheme, rest, ok = "unix", path, true
	}
	if !ok {
		scheme, rest = "http", endpoint
		if haveTLS {
			scheme = "https"
		}
	}
	switch scheme {
	case "unix":
		if rest == "" {
			return false, fmt.Errorf("names no socket: %w", store.ErrInvalid)
		}
		return false, nil
	case "https":
		return true, checkHost(rest)
	case "http":
		if err := checkHost(rest); err != nil {
			return false, err
		}
		if host, _, _ := net.SplitHostPort(rest); !loopback(host) {
			return false, fmt.Errorf("is not encrypted, and everything in the store would be readable on the network: use https: %w", store.ErrInvalid)
		}
		return false, nil
	}
	return false, fmt.Errorf("scheme must be https, http (loopback only) or unix: %w", store.ErrInvalid)
}

func checkHost(hostPort string) error {
	u, err := url.Parse("//" + hostPort)
	if err != nil || u.Hostname() == "" || u.Port() == "" || u.Host != hostPort {
		return fmt.Errorf("must be host:port: %w", store.ErrInvalid)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
