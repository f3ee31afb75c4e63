from peft import LoraConfig

config = LoraConfig(
    task_type='SEQ_CLS',
    r=4,
    lora_alpha=16,
    target_modules='(?:.*\\.)?(?:\\d+\\.attention\\.self\\.query|\\d+\\.attention\\.self\\.key|\\d+\\.attention\\.self\\.value|\\d+\\.attention\\.output\\.dense|\\d+\\.intermediate\\.dense|\\d+\\.output\\.dense)',
    rank_pattern={'\\d+\\.attention\\.self\\.key': 5, '\\d+\\.attention\\.self\\.value': 3, '\\d+\\.intermediate\\.dense': 6, '\\d+\\.output\\.dense': 2},
    bias='none',
)
