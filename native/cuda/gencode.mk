# nvcc's options for the machine code of a compute capability, such as 90. Of 9.0, its own instructions (hopper.h) are in "90a" alone.
machine_code = -gencode arch=compute_$(1)$(if $(filter 90,$(1)),a),code=sm_$(1)$(if $(filter 90,$(1)),a)
