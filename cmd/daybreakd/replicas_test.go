package main

import (
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "daybreak/proto/daybreak/v1"
)

// etcdCluster runs an etcd that listens on a socket, as one outside of daybreakd does, and returns its endpoint.
func etcdCluster(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	client := url.URL{Scheme: "unix", Path: filepath.Join(dir, "c:1")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(dir, "p:1")}
	c := embed.NewConfig()
	c.Dir, c.LogLevel = filepath.Join(dir, "data"), "fatal"
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.MaxTxnOps = 1024
	etcd, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(etcd.Close)
	<-etcd.Server.ReadyNotify()
	return client.String()
}

// TestTwoReplicas: two daybreakd on one etcd cluster with one CA serve the same objects; one leads, and when it goes the
// other does.
func TestTwoReplicas(t *testing.T) {
	etcd, shared := etcdCluster(t), t.TempDir()
	args := []string{"--etcd-endpoints", etcd, "--ca-dir", filepath.Join(shared, "ca"), "--image-store", filepath.Join(shared, "images")}
	dirs := [2]string{t.TempDir(), t.TempDir()}
	first, stopFirst := start(t, dirs[0], args...)
	leads := func(dir string) string { return "unix://" + filepath.Join(dir, "s") }
	waitLeader(t, v1.NewAdminServiceClient(first), leads(dirs[0]))
	second, stopSecond := start(t, dirs[1], args...)
	defer stopSecond()

	zone := &v1.Object{Kind: &v1.Object_Zone{Zone: &v1.Zone{Meta: &v1.Meta{Name: "lgwan"}}}}
	if _, err := v1.NewObjectServiceClient(second).Apply(t.Context(), &v1.ApplyRequest{Object: zone}); err != nil {
		t.Fatal(err)
	}
	if _, err := v1.NewObjectServiceClient(first).Get(t.Context(), &v1.GetRequest{Kind: v1.Kind_KIND_ZONE, Name: "lgwan"}); err != nil {
		t.Errorf("what the second wrote, the first does not see: %v", err)
	}
	_, err := v1.NewDesktopServiceClient(second).Screenshot(t.Context(), &v1.ScreenshotRequest{Desktop: "sales-1"})
	if want := "this daybreakd does not lead and has no agents: ask the one that does (" + leads(dirs[0]) + ")"; status.Code(err) != codes.Unavailable || status.Convert(err).Message() != want {
		t.Errorf("screenshot at the second: %v", err)
	}
	stopFirst()
	waitLeader(t, v1.NewAdminServiceClient(second), leads(dirs[1]))
}

// waitLeader asks until the leader is the one that is expected; elections take their time.
func waitLeader(t *testing.T, client v1.AdminServiceClient, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		info, err := client.Info(t.Context(), &v1.InfoRequest{})
		if err == nil && info.GetLeader() == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("leader %q, %v; want %q", info.GetLeader(), err, want)
		}
	}
}
