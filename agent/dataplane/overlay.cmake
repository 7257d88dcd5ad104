twill_library(twill_overlay SOURCES flannel_device.cpp kernel_overlay.cpp overlay_device.cpp LINK twill_nl)
