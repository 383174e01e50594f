package store

import (
	v1 "daybreak/proto/daybreak/v1"
)

// Version finds a version of an image (nil has none) by its number; nil when there is none of that number.
func Version(image *v1.Image, number uint32) *v1.ImageVersion {
	for _, v := range image.GetStatus().GetVersions() {
		if v.GetNumber() == number {
			return v
		}
	}
	return nil
}

// Runnable returns a version of an image if it may be run, else nil.
func Runnable(image *v1.Image, number uint32) *v1.ImageVersion {
	if v := Version(image, number); v.GetState() == v1.VersionState_VERSION_STATE_READY {
		return v
	}
	return nil
}

// WantedVersion returns the number of the version that a pool is to run by its spec, 0 when there is none that may be run.
// image is the one that the pool names.
func WantedVersion(pool *v1.Pool, image *v1.Image) uint32 {
	number := pool.GetSpec().GetVersion()
	if number == 0 {
		number = image.GetStatus().GetCurrent()
	}
	return Runnable(image, number).GetNumber()
}
