from peft import LoraConfig

config = LoraConfig(
    task_type='SEQ_CLS',
    r=15,
    lora_alpha=16,
    target_modules='(?:.*\\.)?(?:\\d+\\.attention\\.self\\.query|\\d+\\.attention\\.self\\.key|\\d+\\.attention\\.self\\.value|\\d+\\.attention\\.output\\.dense|\\d+\\.intermediate\\.dense|\\d+\\.output\\.dense)',
    rank_pattern={'\\d+\\.attention\\.self\\.value': 9, '\\d+\\.attention\\.output\\.dense': 11, '\\d+\\.intermediate\\.dense': 19, '\\d+\\.output\\.dense': 4},
    bias='none',
)
