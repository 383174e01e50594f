package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	v1 "daybreak/proto/daybreak/v1"
)

func TestRaiseEpoch(t *testing.T) {
	dir := t.TempDir()
	o, err := loadArgs(t, "--data-dir", filepath.Join(dir, "data"), "--log-level", "error")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		to, want uint64
		refused  string
	}{{to: 0, want: 2}, {to: 0, want: 3}, {to: 7, want: 7}, {to: 7, refused: "epoch 7 already"}, {to: 3, refused: "only rises"}} {
		cluster, err := raiseEpoch(context.Background(), o, row.to)
		if row.refused == "" && (err != nil || cluster.Epoch != row.want) {
			t.Errorf("raise to %d: epoch %d, %v, want %d", row.to, cluster.Epoch, err, row.want)
		}
		if row.refused != "" && (err == nil || !strings.Contains(err.Error(), row.refused)) {
			t.Errorf("raise to %d: %v, want a refusal with %q", row.to, err, row.refused)
		}
	}
	conn, stop := start(t, dir)
	defer stop()
	info, err := v1.NewAdminServiceClient(conn).Info(t.Context(), &v1.InfoRequest{})
	if err != nil || info.GetClusterEpoch() != 7 {
		t.Errorf("daybreakd serves epoch %d, %v, want 7", info.GetClusterEpoch(), err)
	}
	if _, err := raiseEpoch(context.Background(), o, 0); err == nil {
		t.Error("the epoch of a running daybreakd's store was raised")
	}
}
