package api

import v1 "daybreak/proto/daybreak/v1"

// rolloutService steers the move of pools between versions.
type rolloutService struct {
	v1.UnimplementedRolloutServiceServer
}
