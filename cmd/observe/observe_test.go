package observe

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestRun(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "something_total"})
	registry.MustRegister(counter)
	var wrong atomic.Value
	wrong.Store("")
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		result <- Run(ctx, listener, registry, func() string { return wrong.Load().(string) }, Well)
	}()
	expect := func(path string, status int, text string) {
		t.Helper()
		answer, err := http.Get("http://" + listener.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != status || !strings.Contains(string(body), text) {
			t.Errorf("%s: %d %q, %v; want %d %q", path, answer.StatusCode, body, err, status, text)
		}
	}
	expect("/metrics", http.StatusOK, "something_total 0")
	expect("/healthz", http.StatusOK, "ok")
	wrong.Store("the store cannot be read")
	expect("/healthz", http.StatusServiceUnavailable, "the store cannot be read")
	expect("/readyz", http.StatusOK, "ok")
	cancel()
	if err := <-result; err != nil {
		t.Errorf("ended with %v", err)
	}
}
